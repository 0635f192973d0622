-- question: Which pupils are in no class?
-- severity: warning
-- of: students
-- Those that begin later count.
SELECT p.estab, p.sourced_id
FROM students AS p
WHERE NOT EXISTS (
        SELECT 1
        FROM enrollments AS e
        JOIN classes AS c ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id
        WHERE e.estab = p.estab AND e.user_sourced_id = p.sourced_id
            AND NOT e._deleted AND NOT c._deleted
            AND (e.end_date IS NULL OR e.end_date >= CURRENT_DATE)
    )
