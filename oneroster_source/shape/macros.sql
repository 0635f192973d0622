-- What reading OneRoster's JSON needs beyond DuckDB's own functions.
-- A JSON value named x may be NULL (absent), 'null', or of any type: providers differ.

CREATE MACRO as_flag(x) AS CASE lower(x)
    WHEN 'true' THEN true WHEN '1' THEN true WHEN 'false' THEN false WHEN '0' THEN false END;

-- a cast alone would also take 'infinity' and 'epoch', and years that Python and Postgres lack
-- and would read '2026-9-1 ', '99999-1-01' and '1-1-1 (BC)'
CREATE MACRO as_date(x) AS CASE
    WHEN x LIKE '____-__-__%' AND ascii(x) BETWEEN 48 AND 57 AND NOT starts_with(x, '0000')
    THEN CASE
        WHEN length(x) = 10 THEN CASE WHEN TRY_CAST(x AS DATE)::VARCHAR = x THEN TRY_CAST(x AS DATE) END
        WHEN x[10] BETWEEN '0' AND '9'
            AND regexp_full_match(x, '.{10}[T ]00:00(:00(\.0+)?)?(Z|[+-]\d\d(:?\d\d)?)?')
        THEN TRY_CAST(left(x, 10) AS DATE) END END;

CREATE MACRO as_instant(x) AS CASE
    WHEN x LIKE '____-%' AND ascii(x) BETWEEN 48 AND 57 AND TRY_CAST(x AS TIMESTAMPTZ)
        BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
        AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'
    THEN TRY_CAST(x AS TIMESTAMPTZ) END;

-- 'inactive' is 1.0's word for it
CREATE MACRO is_deleted(status) AS CASE WHEN status = 'active' THEN false
    ELSE coalesce(lower(regexp_replace(status, '[-_\s]', '', 'g'))
        IN ('tobedeleted', 'inactive'), false) END;

CREATE MACRO has_value(x) AS coalesce(x::VARCHAR NOT IN ('""', 'null', '[]', '{}'), false);
CREATE MACRO first_item(x) AS CASE WHEN starts_with(x::VARCHAR, '[') THEN x->0 ELSE x END;
CREATE MACRO items(x) AS CASE WHEN has_value(x) THEN list_filter(
    CASE WHEN starts_with(x::VARCHAR, '[') THEN from_json(x, '["JSON"]') ELSE [x] END,
    lambda i: coalesce(i::VARCHAR NOT IN ('""', 'null'), false)) ELSE [] END;

-- a reference x is an object with these parts p, or, without parts, the id alone
CREATE MACRO ref_parts(x) AS CASE WHEN starts_with(x::VARCHAR, '{') THEN from_json(x,
    '{"sourcedId":"VARCHAR","sourceId":"VARCHAR","id":"VARCHAR","type":"VARCHAR","href":"VARCHAR"}')
    END;
CREATE MACRO ref_id(x, p) AS nullif(CASE WHEN p IS NULL THEN x->>'$'
    -- a struct cannot have members that differ in case alone
    ELSE coalesce(p."sourcedId", p."sourceId", p.id, x->>'$.sourceID') END, '');
CREATE MACRO as_ref(x, p) AS {'sourced_id': ref_id(x, p),
    'type': nullif(p.type, ''), 'href': nullif(p.href, '')};
CREATE MACRO has_repeats(names) AS list_unique(names) < len(names);
-- whether a reference says more than its columns hold; most have these three members only, as
-- texts, which the length proves without another look inside (of the last one, a number would
-- leave room for a fourth)
CREATE MACRO ref_has_more(x, p) AS CASE
    WHEN p IS NULL THEN false
    WHEN strlen(x::VARCHAR) = 36 + strlen(p."sourcedId") + strlen(p.type) + strlen(p.href)
        AND ends_with(x::VARCHAR, '"}')
    THEN false
    ELSE NOT list_has_all(
            ['sourcedId', 'sourceId', 'sourceID', 'id', 'type', 'href'], json_keys(x))
        OR has_repeats(json_keys(x))
        OR len(list_intersect(['sourcedId', 'sourceId', 'sourceID', 'id'], json_keys(x))) > 1 END;

CREATE MACRO has_other_keys(x, names) AS starts_with(x::VARCHAR, '{')
    AND (NOT list_has_all(names, json_keys(x)) OR has_repeats(json_keys(x)));
CREATE MACRO pointer(name) AS '/' || replace(replace(name, '~', '~0'), '/', '~1');
CREATE MACRO member(x, name) AS json_extract(x, pointer(name));
-- the names that come more than once
CREATE MACRO repeated(names) AS CASE WHEN has_repeats(names) THEN list_sort(list_distinct(
    list_transform(list_filter(list_zip(list_sort(names), list_sort(names)[2:]),
        lambda pair: pair[1] = pair[2]), lambda pair: pair[1]))) ELSE [] END;
-- JSON as text, and text of it where it is more than databases take: Postgres refuses numbers of
-- 131,073 digits, such as 1e200000, and what is some thousand levels deep
CREATE MACRO as_json(x) AS CASE
    WHEN starts_with(x::VARCHAR, '"') THEN x::VARCHAR
    WHEN regexp_matches(x::VARCHAR, '[0-9][eE][+-]?[0-9]{4}')
        OR strlen(x::VARCHAR) - strlen(translate(x::VARCHAR, '[{', '')) > 2000
    THEN to_json(x::VARCHAR)::VARCHAR ELSE x::VARCHAR END;
CREATE MACRO as_member(name, value) AS to_json(name)::VARCHAR || ':' || as_json(value);
-- the members of x with these names, of which none comes twice
CREATE MACRO pick(x, names) AS
    list_transform(names, lambda n: as_member(n, member(x, n)));
-- for each name, the list of all that x holds under it
CREATE MACRO pick_all(x, names) AS list_transform(names, lambda n: as_member(n, '['
    || array_to_string(list_transform(list_filter(list_zip(json_keys(x), json_extract(x, '$.*')),
    lambda m: m[1] = n), lambda m: m[2]::VARCHAR), ',') || ']'));
