-- question: Which rows do not say when they changed, so that no delta brings them?
-- severity: warning
-- of: orgs, academic_sessions, courses, classes, users, enrollments
SELECT estab, sourced_id
FROM orgs
WHERE NOT _deleted AND date_last_modified IS NULL
UNION ALL
SELECT estab, sourced_id
FROM academic_sessions
WHERE NOT _deleted AND date_last_modified IS NULL
UNION ALL
SELECT estab, sourced_id
FROM courses
WHERE NOT _deleted AND date_last_modified IS NULL
UNION ALL
SELECT estab, sourced_id
FROM classes
WHERE NOT _deleted AND date_last_modified IS NULL
UNION ALL
SELECT estab, sourced_id
FROM users
WHERE NOT _deleted AND date_last_modified IS NULL
UNION ALL
SELECT estab, sourced_id
FROM enrollments
WHERE NOT _deleted AND date_last_modified IS NULL
