"""Pragmas that read the schema, pragmas that set something, and upkeep."""

from tests.sqlite.differential.drawing import Draw, lines_of
from tests.sqlite.differential.schema import quoted
from tests.sqlite.differential.statements import Statement

_OF_TABLES = lines_of("table_info  table_xinfo  index_list  foreign_key_list  foreign_key_check  table_list")
_OF_INDEXES = ("index_info", "index_xinfo")
_OF_DATABASES = lines_of("""
    foreign_key_check  integrity_check  quick_check  user_version  application_id  encoding  auto_vacuum  page_size
    foreign_keys  recursive_triggers  defer_foreign_keys  ignore_check_constraints  cache_size  synchronous
    reverse_unordered_selects  automatic_index  legacy_alter_table
""")
_SWITCHES = lines_of("""
    recursive_triggers  ignore_check_constraints  defer_foreign_keys  reverse_unordered_selects  automatic_index
    legacy_alter_table  cell_size_check
""")
_UPKEEP = lines_of("""
    VACUUM  ANALYZE  ANALYZE {t}  REINDEX  REINDEX {t}  REINDEX NOCASE  PRAGMA optimize  PRAGMA incremental_vacuum
    PRAGMA shrink_memory  PRAGMA wal_checkpoint  PRAGMA wal_checkpoint(TRUNCATE)
""")


def ask_pragma(d: Draw) -> Statement:
    """Ask a pragma that reads."""
    sources = [*d.schema.tables, *d.schema.views]
    if d.chance(30) or not sources:
        pragma = d.one(*_OF_DATABASES)
        # After a write on another connection, a check of SQLite may call a sound search index
        # damaged.
        is_unsure = pragma.endswith("_check") and d.schema.has_virtual
        return Statement(f"PRAGMA {d.one('', '', 'main.')}{pragma}", varies=is_unsure)
    pragma = d.one(*_OF_TABLES, *_OF_INDEXES)
    if pragma in _OF_INDEXES:
        place, _, name = d.one(*(d.schema.indexes or ["main.sqlite_autoindex_t_1"])).partition(".")
    else:
        table = d.one(*sources)
        place, name = table.schema, quoted(table.name)
    # The number of columns of a view that has become wrong depends on earlier looks at it.
    is_unsure = pragma == "table_list" and bool(d.schema.views)
    if d.chance(40):
        argument = d.value([name.strip('"').replace('""', '"')])
        return Statement(f"SELECT * FROM pragma_{pragma}({argument})", d.params, varies=is_unsure)
    return Statement(f"PRAGMA {d.one('', f'{place}.')}{pragma}({name})", varies=is_unsure)


def set_pragma(d: Draw) -> Statement:
    """Set a value of the database, or a setting of the connection."""
    kind = d.weighted({"number": 3, "foreign_keys": 2, "switch": 4})
    if kind == "number":
        return Statement(f"PRAGMA {d.one('user_version', 'application_id')} = {d.one(0, 1, 7, -1, 2**31 - 1)}")
    if kind == "switch":
        return Statement(f"PRAGMA {d.one(*_SWITCHES)} = {d.one('ON', 'OFF')}")
    is_on = d.chance(50)
    value = d.one("ON", "1", "yes") if is_on else d.one("OFF", "0", "no")
    return Statement(f"PRAGMA foreign_keys = {value}", switches=is_on)


def keep_up(d: Draw) -> Statement:
    """Vacuum, analyze, and the like."""
    text = d.one(*_UPKEEP)
    if d.in_transaction and "checkpoint" in text:
        text = "REINDEX"  # the log is locked: drawing a statement reads the schema
    return Statement(text.replace("{t}", str(d.table() or "missing")), varies=text.startswith("PRAGMA"))
