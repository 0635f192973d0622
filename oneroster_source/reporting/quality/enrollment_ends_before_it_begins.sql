-- question: Which enrollments end before they begin?
-- severity: error
-- of: enrollments
SELECT estab, sourced_id
FROM enrollments
WHERE NOT _deleted AND end_date < begin_date
