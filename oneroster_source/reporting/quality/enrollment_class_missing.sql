-- question: Which enrollments are in a class that is not there?
-- severity: error
-- of: enrollments
SELECT r.estab, r.sourced_id
FROM enrollments AS r
WHERE NOT r._deleted
    AND NOT EXISTS (
        SELECT 1 FROM classes AS t WHERE t.estab = r.estab AND t.sourced_id = r.class_sourced_id
    )
