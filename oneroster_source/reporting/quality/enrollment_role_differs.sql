-- question: Which enrollments have a pupil as staff, or staff as a pupil?
-- severity: warning
-- of: enrollments
SELECT e.estab, e.sourced_id
FROM enrollments AS e
JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
WHERE NOT e._deleted
    AND (e.role ILIKE 'student') <> (u.role ILIKE 'student')
