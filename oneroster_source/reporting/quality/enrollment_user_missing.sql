-- question: Which enrollments are of a user that is not there?
-- severity: error
-- of: enrollments
SELECT r.estab, r.sourced_id
FROM enrollments AS r
WHERE NOT r._deleted
    AND NOT EXISTS (
        SELECT 1 FROM users AS t WHERE t.estab = r.estab AND t.sourced_id = r.user_sourced_id
    )
