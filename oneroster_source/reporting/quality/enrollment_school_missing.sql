-- question: Which enrollments are at a school that is not there?
-- severity: error
-- of: enrollments
SELECT r.estab, r.sourced_id
FROM enrollments AS r
WHERE NOT r._deleted
    AND NOT EXISTS (
        SELECT 1 FROM orgs AS t WHERE t.estab = r.estab AND t.sourced_id = r.school_sourced_id
    )
