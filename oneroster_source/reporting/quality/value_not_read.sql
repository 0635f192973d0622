-- question: Which rows hold something that could not be read?
-- severity: warning
-- of: orgs, academic_sessions, courses, classes, users, enrollments
-- The table rejected_rows says what. A row without sourcedId is shown as its endpoint.
SELECT DISTINCT estab, COALESCE(sourced_id, endpoint) AS sourced_id
FROM rejected_rows
