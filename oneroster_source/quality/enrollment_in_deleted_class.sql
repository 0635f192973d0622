-- question: Which enrollments go on though their class is deleted?
-- severity: warning
-- of: enrollments
-- What has ended is of the past.
SELECT e.estab, e.sourced_id
FROM enrollments AS e
JOIN classes AS t ON t.estab = e.estab AND t.sourced_id = e.class_sourced_id AND t._deleted
WHERE NOT e._deleted AND (e.end_date IS NULL OR e.end_date >= CURRENT_DATE)
