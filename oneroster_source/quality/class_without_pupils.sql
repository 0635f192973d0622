-- question: Which classes have no pupils?
-- severity: info
-- of: classes
-- Those who come later count.
SELECT c.estab, c.sourced_id
FROM classes AS c
WHERE NOT c._deleted
    AND NOT EXISTS (
        SELECT 1
        FROM enrollments AS e
        JOIN users AS u ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id
        WHERE e.estab = c.estab AND e.class_sourced_id = c.sourced_id
            AND e.role ILIKE 'student' AND NOT e._deleted AND NOT u._deleted
            AND (e.end_date IS NULL OR e.end_date >= CURRENT_DATE)
    )
