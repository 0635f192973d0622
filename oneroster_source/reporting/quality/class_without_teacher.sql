-- question: Which classes have nobody to teach them?
-- severity: warning
-- of: classes
-- asks: enrollments.end_date
-- Those who come later count.
SELECT c.estab, c.sourced_id
FROM classes AS c
WHERE NOT c._deleted
    AND NOT EXISTS (
        SELECT 1
        FROM enrollment_states AS e
        JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id
        WHERE e.estab = c.estab AND e.class_sourced_id = c.sourced_id
            AND e.role = 'teacher' AND NOT u._deleted AND e.state IN ('current', 'upcoming')
    )
