-- question: Which academic sessions end before they begin?
-- severity: error
-- of: academic_sessions
SELECT estab, sourced_id
FROM academic_sessions
WHERE NOT _deleted AND end_date < start_date
