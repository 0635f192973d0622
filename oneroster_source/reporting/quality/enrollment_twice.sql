-- question: Which enrollments say again what another one says?
-- severity: warning
-- of: enrollments
-- The same person in the same class, in the same role, on the same days.
SELECT e.estab, e.sourced_id
FROM enrollments AS e
WHERE NOT e._deleted
    AND EXISTS (
        SELECT 1
        FROM enrollments AS o
        WHERE o.estab = e.estab AND o.user_sourced_id = e.user_sourced_id
            AND o.class_sourced_id = e.class_sourced_id AND LOWER(o.role) = LOWER(e.role)
            AND o.sourced_id <> e.sourced_id AND NOT o._deleted
            AND COALESCE(o.begin_date <= e.end_date, TRUE)
            AND COALESCE(e.begin_date <= o.end_date, TRUE)
    )
