-- question: Which schools were not loaded well in the last three days?
-- severity: error
-- of: school_summary
-- ids: schools
-- The view school_loads says what is stale.
SELECT s.estab, s.estab AS sourced_id
FROM school_summary AS s
LEFT JOIN school_loads AS l ON l.estab = s.estab
WHERE COALESCE(l.stale, TRUE)
