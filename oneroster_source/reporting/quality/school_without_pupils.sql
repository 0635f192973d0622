-- question: Which schools have no pupils?
-- severity: error
-- of: school_summary
-- ids: schools
SELECT estab, estab AS sourced_id
FROM school_summary
WHERE students = 0
