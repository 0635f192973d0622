-- What reading OneRoster's JSON needs beyond DuckDB's own functions.
-- A JSON value named x may be NULL (absent), 'null', or of any type: providers differ.

CREATE MACRO as_flag(x) AS CASE lower(x)
    WHEN 'true' THEN true WHEN '1' THEN true WHEN 'false' THEN false WHEN '0' THEN false END;

-- An instant is read in the extended form of ISO 8601 down to the hour, whatever its separator and
-- zone; without a zone it is UTC. As in ISO 8601, 24:00 is the end of the day, and :60 a leap second,
-- which is the beginning of the next minute here. Digits of a second after the sixth are cut off.
CREATE MACRO instant_parts(x) AS regexp_extract(x,
    '^(\d{4}-\d\d?-\d\d?)(?:[Tt ](\d\d?)(?::(\d\d?)(?::(\d\d?)(?:[.,](\d{1,6})\d*)?)?)?'
    || '(?: ?(?:Z|z|UTC|([+-])([01]\d|2[0-3]):?([0-5]\d)?))?)?$',
    ['day', 'hour', 'minute', 'second', 'fraction', 'sign', 'hours', 'minutes']);
CREATE MACRO instant_of(p) AS
    TRY_CAST(p.day || ' ' || if(p.hour = '', '0', p.hour) || ':' || if(p.minute = '', '0', p.minute)
        || ':' || if(p.second = '', '0', if(p.minute = '59' AND p.second = '60', '59', p.second))
        || '.' || if(p.second = '60', '0', rpad(p.fraction, 6, '0')) AS TIMESTAMP)
    + to_seconds(if(p.second = '60', 1, 0))
    - to_minutes(if(p.sign = '-', -1, 1)
        * (60 * coalesce(TRY_CAST(p.hours AS BIGINT), 0) + coalesce(TRY_CAST(p.minutes AS BIGINT), 0)));
CREATE MACRO as_instant(x) AS CASE
    WHEN x LIKE '____-%' THEN CASE
        -- nearly all, which a cast reads twenty times as fast
        WHEN regexp_full_match(x, '\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?'
            || '(Z|[+-]([01]\d|2[0-3])(:?[0-5]\d)?)?')
            AND TRY_CAST(x AS TIMESTAMPTZ) BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00'
                AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'
        THEN TRY_CAST(x AS TIMESTAMPTZ)
        -- years that Python and Postgres lack are left out
        ELSE list_filter(list_transform([instant_parts(x)], lambda p: instant_of(p)), lambda t: t
            BETWEEN TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '9999-12-31 23:59:59.999999'
            )[1]::TIMESTAMPTZ END END;

-- The day that begins at an instant in a time zone. Where clocks go forward at midnight, days begin
-- later.
CREATE MACRO local_day(t, zone) AS list_transform(
    [{'day': timezone(zone, t), 'before': timezone(zone, t - INTERVAL 1 MICROSECOND)}],
    lambda l: CASE WHEN (l.day::TIME = TIME '00:00:00' OR l.day::DATE > l.before::DATE)
        AND l.day BETWEEN TIMESTAMP '0001-01-01 00:00:00' AND TIMESTAMP '9999-12-31 00:00:00'
    THEN l.day::DATE END)[1];
-- A date is a day; or midnight of a day, as it is written; or else an instant at which a day begins
-- in the time zone. A cast alone would also take 'infinity' and 'epoch', and years that Python and
-- Postgres lack, and would read '2026-9-1 ', '99999-1-01' and '1-1-1 (BC)'.
CREATE MACRO as_date(x, zone) AS CASE
    WHEN x LIKE '____-__-__%' AND ascii(x) BETWEEN 48 AND 57 AND NOT starts_with(x, '0000')
    THEN CASE
        WHEN length(x) = 10 THEN CASE WHEN TRY_CAST(x AS DATE)::VARCHAR = x THEN TRY_CAST(x AS DATE) END
        WHEN regexp_full_match(x, '.{9}\d[Tt ]00(:00(:00([.,]0+)?)?)?( ?(Z|z|UTC|[+-]\d\d(:?\d\d)?))?')
        THEN TRY_CAST(left(x, 10) AS DATE)
        WHEN regexp_full_match(x, '.{9}\d[Tt ].*(Z|z|UTC|[+-]\d\d(:?\d\d)?)')
        THEN list_transform([as_instant(x)], lambda t: local_day(t, zone))[1] END END;

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
    ELSE coalesce(p."sourcedId", p."sourceId", p.id) END, '');
CREATE MACRO as_ref(x, p) AS {'sourced_id': ref_id(x, p),
    'type': nullif(p.type, ''), 'href': nullif(p.href, '')};
CREATE MACRO has_repeats(names) AS list_unique(names) < len(names);
-- whether a reference says more than its columns hold; most have these three members only, as
-- texts, which the length proves without another look inside: of texts, since numbers would leave
-- room for a fourth, of which the shortest at the end is named
CREATE MACRO ref_has_more(x, p) AS CASE
    WHEN p IS NULL THEN false
    WHEN strlen(x::VARCHAR) = 36 + strlen(p."sourcedId") + strlen(p.type) + strlen(p.href)
        AND ends_with(x::VARCHAR, '"}') AND NOT ends_with(x::VARCHAR, ',"":""}')
    THEN false
    ELSE NOT list_has_all(['sourcedId', 'sourceId', 'id', 'type', 'href'], json_keys(x)) OR has_repeats(json_keys(x))
        OR len(list_intersect(['sourcedId', 'sourceId', 'id'], json_keys(x))) > 1 END;

CREATE MACRO has_other_keys(x, names) AS starts_with(x::VARCHAR, '{')
    AND (NOT list_has_all(names, json_keys(x)) OR has_repeats(json_keys(x)));
CREATE MACRO pointer(name) AS '/' || replace(replace(name, '~', '~0'), '/', '~1');
CREATE MACRO member(x, name) AS json_extract(x, pointer(name));
-- the names that come more than once
CREATE MACRO repeated(names) AS CASE WHEN has_repeats(names) THEN list_sort(list_distinct(
    list_transform(list_filter(list_zip(list_sort(names), list_sort(names)[2:]),
        lambda pair: pair[1] = pair[2]), lambda pair: pair[1]))) ELSE [] END;
-- what of JSON stands outside of texts, names included
CREATE MACRO bare(x) AS regexp_replace(x::VARCHAR, '"([^"\\]|\\.)*"', '', 'g');
-- the most lists and objects that are in each other
CREATE MACRO depth(x) AS list_reduce(
    list_transform(string_split(regexp_replace(bare(x), '[^\[\]{}]', '', 'g'), ''),
        lambda c: {'open': if(c IN ('[', '{'), 1, -1), 'most': 0}),
    lambda a, b: {'open': a.open + b.open, 'most': greatest(a.most, a.open + b.open)}).most;
-- a number of more digits than databases take: Postgres refuses 131,073 of them, such as 1e200000
CREATE MACRO has_huge_number(x) AS CASE
    WHEN regexp_matches(x::VARCHAR, '[0-9][eE][+-]?[0-9]{4}')
        AND regexp_matches(bare(x), '[0-9][eE][+-]?[0-9]{4}') THEN true
    WHEN strlen(x::VARCHAR) > 100000
    THEN list_max(list_transform(regexp_extract_all(bare(x), '[0-9]+'), lambda d: strlen(d))) > 100000
    ELSE false END;
-- what is some thousand levels deep, which they refuse too
CREATE MACRO is_deep(x) AS CASE
    WHEN strlen(x::VARCHAR) - strlen(translate(x::VARCHAR, '[{', '')) > 2000
    THEN depth(x) > 2000 ELSE false END;
-- JSON as text, and text of it where it is more than databases take
CREATE MACRO as_json(x) AS CASE
    WHEN starts_with(x::VARCHAR, '"') THEN x::VARCHAR
    WHEN has_huge_number(x) OR is_deep(x) THEN to_json(x::VARCHAR)::VARCHAR
    ELSE x::VARCHAR END;
CREATE MACRO as_member(name, value) AS to_json(name)::VARCHAR || ':' || as_json(value);
-- the members of x with these names, of which none comes twice
CREATE MACRO pick(x, names) AS
    list_transform(names, lambda n: as_member(n, member(x, n)));
-- for each name, the list of all that x holds under it
CREATE MACRO pick_all(x, names) AS list_transform(names, lambda n: as_member(n, '['
    || array_to_string(list_transform(list_filter(list_zip(json_keys(x), json_extract(x, '$.*')),
    lambda m: m[1] = n), lambda m: m[2]::VARCHAR), ',') || ']'));
