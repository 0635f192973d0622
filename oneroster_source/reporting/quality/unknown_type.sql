-- question: Which orgs, sessions and classes are of a type that the standard does not know?
-- severity: info
-- of: orgs, academic_sessions, classes
SELECT estab, sourced_id
FROM orgs
WHERE NOT _deleted
    AND LOWER(type) NOT IN ('department', 'school', 'district', 'local', 'state', 'national')
UNION ALL
SELECT estab, sourced_id
FROM academic_sessions
WHERE NOT _deleted
    AND LOWER(type) NOT IN ('gradingperiod', 'semester', 'schoolyear', 'term')
UNION ALL
SELECT estab, sourced_id
FROM classes
WHERE NOT _deleted
    AND LOWER(class_type) NOT IN ('homeroom', 'scheduled')
