-- question: Who works here, and as what?
-- grain: one row per school and member of staff who is not deleted
-- key: estab, sourced_id
-- Staff is whoever is a teacher, an aide, an administrator or a proctor.
SELECT
    u.estab,
    u.sourced_id,
    LOWER(u.role) AS role,
    u.given_name,
    u.middle_name,
    u.family_name,
    u.username,
    u.identifier,
    u.email,
    u.enabled_user,
    o.school_sourced_id,
    o.school_name,
    u.date_last_modified
FROM users AS u
LEFT JOIN user_schools AS o ON o.estab = u.estab AND o.user_sourced_id = u.sourced_id
WHERE LOWER(u.role) IN ('teacher', 'aide', 'administrator', 'proctor') AND NOT u._deleted
