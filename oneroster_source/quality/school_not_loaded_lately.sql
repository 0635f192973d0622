-- question: Which schools were not loaded in the last three days?
-- severity: error
-- of: school_summary
SELECT estab, estab AS sourced_id
FROM school_summary
WHERE last_load IS NULL OR last_load < CURRENT_TIMESTAMP - INTERVAL '3' DAY
