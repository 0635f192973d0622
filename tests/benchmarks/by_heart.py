"""The data of the benchmark as somebody knows it who has never seen any other."""

_REF = '{"sourcedId":"VARCHAR","type":"VARCHAR","href":"VARCHAR"}'


def _texts(*names: str) -> str:
    return ",".join(f'"{name}":"VARCHAR"' for name in names)


def _refs(parent: str, attribute: str) -> str:
    items = f'unnest("{attribute}") AS i, unnest(range(len("{attribute}"))) AS position'
    return (
        f'SELECT {parent}, position, i."sourcedId" AS sourced_id, i.type, i.href'
        f' FROM (SELECT "sourcedId" AS {parent}, {items} FROM page)'
    )


USER = (
    f"{{{_texts('sourcedId', 'status', 'username', 'givenName', 'middleName', 'familyName')},"
    f"{_texts('role', 'identifier', 'email', 'sms', 'phone')},"
    '"dateLastModified":"TIMESTAMPTZ","enabledUser":"BOOLEAN",'
    f'"orgs":[{_REF}],"userIds":[{{{_texts("type", "identifier")}}}],"grades":["VARCHAR"],'
    f'"agents":[{_REF}]}}'
)
ENROLLMENT = (
    f"{{{_texts('sourcedId', 'status', 'role')},"
    '"dateLastModified":"TIMESTAMPTZ","primary":"BOOLEAN","beginDate":"DATE","endDate":"DATE",'
    f'"user":{_REF},"class":{_REF},"school":{_REF}}}'
)
COLLECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "users": (
        USER,
        {
            "users": 'SELECT "sourcedId" AS sourced_id, status,'
            ' "dateLastModified" AS date_last_modified, username, "givenName" AS given_name,'
            ' "middleName" AS middle_name, "familyName" AS family_name, role, identifier, email,'
            ' sms, phone, "enabledUser" AS enabled_user FROM page',
            "users__orgs": _refs("user_sourced_id", "orgs"),
            "users__user_ids": "SELECT user_sourced_id, position, i.type, i.identifier FROM"
            ' (SELECT "sourcedId" AS user_sourced_id, unnest("userIds") AS i,'
            ' unnest(range(len("userIds"))) AS position FROM page)',
            "users__grades": 'SELECT "sourcedId" AS user_sourced_id,'
            " unnest(range(len(grades))) AS position, unnest(grades) AS value FROM page",
            "users__agents": _refs("user_sourced_id", "agents"),
        },
    ),
    "enrollments": (
        ENROLLMENT,
        {
            "enrollments": 'SELECT "sourcedId" AS sourced_id, status,'
            ' "dateLastModified" AS date_last_modified, role, "primary",'
            ' "beginDate" AS begin_date, "endDate" AS end_date,'
            ' "user"."sourcedId" AS user_sourced_id, "class"."sourcedId" AS class_sourced_id,'
            ' school."sourcedId" AS school_sourced_id FROM page',
        }
        | {
            f"enrollments__{name}": 'SELECT "sourcedId" AS enrollment_sourced_id, 0 AS position,'
            f' "{name}"."sourcedId" AS sourced_id, "{name}".type, "{name}".href FROM page'
            for name in ("user", "class", "school")
        },
    ),
}
"""For each collection the structure of its rows, and what is selected from `page` for each table."""
