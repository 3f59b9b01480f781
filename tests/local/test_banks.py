"""What curators ask of SQLite."""

from countermark.domain.bank import BankChange, ContentChange, ContentDraft
from countermark.local.banks import SqliteBankStore
from countermark.local.database import Database


def test_a_change_reads_what_it_changes_once_and_writes_it_once() -> None:
    with Database.in_memory() as database:
        store = SqliteBankStore(database)
        bank = store.create_bank("A", ratio=1.0)
        banked = store.add_content(bank.id, ContentDraft(signals={"pdq": "f" * 64}), now_s=1)
        statements: list[str] = []
        with database.write() as connection:
            connection.set_trace_callback(lambda statement: statements.append(statement.split()[0]))
        statements.clear()
        store.update_content("A", banked.id, ContentChange(disable_until_ts=5, note="x", reason="y"))
        assert statements == ["BEGIN", "SELECT", "SELECT", "UPDATE", "COMMIT"], "the bank, the content, and the content"
        statements.clear()
        store.update_bank("A", BankChange(matching_enabled_ratio=0.5))
        assert statements == ["BEGIN", "SELECT", "UPDATE", "COMMIT"]
