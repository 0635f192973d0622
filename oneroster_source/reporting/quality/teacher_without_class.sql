-- question: Which teachers have no class?
-- severity: info
-- of: staff
-- ids: users
-- asks: enrollments.end_date
-- Those that begin later count.
SELECT p.estab, p.sourced_id
FROM staff AS p
WHERE p.role = 'teacher' AND NOT EXISTS (
        SELECT 1
        FROM enrollment_states AS e
        JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id
        WHERE e.estab = p.estab AND e.user_sourced_id = p.sourced_id
            AND NOT c._deleted AND e.state IN ('current', 'upcoming')
    )
