-- question: Which enrollments go on though their class is deleted?
-- severity: warning
-- of: enrollments
-- asks: enrollments.end_date
-- What has ended is of the past. Where the end could not be read, it is not known to go on.
SELECT e.estab, e.sourced_id
FROM enrollment_states AS e
JOIN classes AS t ON t.estab = e.estab AND t.sourced_id = e.class_sourced_id AND t._deleted
WHERE e.state IN ('current', 'upcoming')
