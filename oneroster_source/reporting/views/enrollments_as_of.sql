-- question: Who was in which class at some time, as it was known then?
-- grain: one row per enrollment and period in which nothing about it, its user and its class changed
-- key: estab, enrollment_sourced_id, valid_from
-- Each holds from valid_from on, until just before valid_to, or until now where there is none. It is
-- there with `history` alone. The dates are not known where one was sent that could not be read, of
-- versions that hold now; of earlier ones it is not kept.
SELECT
    e.estab,
    e.sourced_id AS enrollment_sourced_id,
    LOWER(e.role) AS role,
    e."primary" AS is_primary,
    e.begin_date,
    e.end_date,
    e.user_sourced_id,
    u.given_name,
    u.family_name,
    e.class_sourced_id,
    c.title AS class_title,
    e.school_sourced_id,
    GREATEST(e.valid_from, u.valid_from, c.valid_from) AS valid_from,
    -- not on every database LEAST passes over what is NULL
    NULLIF(
        LEAST(
            COALESCE(e.valid_to, TIMESTAMPTZ '9999-12-31 00:00:00+00'),
            COALESCE(u.valid_to, TIMESTAMPTZ '9999-12-31 00:00:00+00'),
            COALESCE(c.valid_to, TIMESTAMPTZ '9999-12-31 00:00:00+00')
        ),
        TIMESTAMPTZ '9999-12-31 00:00:00+00'
    ) AS valid_to,
    d.sourced_id IS NULL AS are_dates_known
FROM enrollments_history AS e
LEFT JOIN (
    SELECT DISTINCT estab, sourced_id
    FROM rejected_rows
    WHERE endpoint = 'enrollments' AND reason IN ('beginDate: not a date', 'endDate: not a date')
) AS d ON d.estab = e.estab AND d.sourced_id = e.sourced_id AND e.valid_to IS NULL
JOIN users_history AS u
    ON u.estab = e.estab AND u.sourced_id = e.user_sourced_id AND NOT u._deleted
    AND (u.valid_to IS NULL OR u.valid_to > e.valid_from)
    AND (e.valid_to IS NULL OR e.valid_to > u.valid_from)
JOIN classes_history AS c
    ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
    AND (c.valid_to IS NULL OR (c.valid_to > e.valid_from AND c.valid_to > u.valid_from))
    AND (e.valid_to IS NULL OR e.valid_to > c.valid_from)
    AND (u.valid_to IS NULL OR u.valid_to > c.valid_from)
WHERE NOT e._deleted
