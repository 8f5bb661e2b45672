"""Numbered migrations of the ledger's database: append, never edit.

`{key}` and the like are the store's types and clauses. Amounts are integers in the unit of their accounts; times are
microseconds since 1970 UTC.
"""

MIGRATIONS: list[list[str]] = [
    [
        # credits - debits - held is what is available; a wallet (overdraft 0) may never go below zero
        """CREATE TABLE accounts (
            id {key}, name TEXT NOT NULL, unit TEXT NOT NULL, overdraft {integer} NOT NULL,
            credits {integer} NOT NULL DEFAULT 0 CHECK (credits >= 0),
            debits {integer} NOT NULL DEFAULT 0 CHECK (debits >= 0),
            held {integer} NOT NULL DEFAULT 0 CHECK (held >= 0),
            UNIQUE (name, unit),
            CHECK (overdraft = 1 OR credits - debits - held >= 0)){strict}""",
        # window and terms are set on payouts only
        """CREATE TABLE transfers (
            seq {key}, id TEXT NOT NULL UNIQUE, debit {integer} NOT NULL REFERENCES accounts (id),
            credit {integer} NOT NULL REFERENCES accounts (id), amount {integer} NOT NULL CHECK (amount > 0),
            code TEXT NOT NULL, time_us {integer} NOT NULL, window_id {integer}, terms TEXT,
            CHECK (debit <> credit)){strict}""",
        "CREATE INDEX transfers_debit ON transfers (debit, time_us) WHERE code = 'usage' OR code = 'owed'",
        "CREATE INDEX transfers_payout ON transfers (credit) WHERE window_id IS NOT NULL",
        """CREATE TABLE holds (
            id TEXT PRIMARY KEY, tenant TEXT NOT NULL, account {integer} NOT NULL REFERENCES accounts (id),
            amount {integer} NOT NULL CHECK (amount >= 0), expires_us {integer} NOT NULL, state TEXT NOT NULL,
            posted {integer} NOT NULL DEFAULT 0, CHECK (posted >= 0 AND posted <= amount),
            CHECK (state IN ('pending', 'posted', 'voided', 'expired'))){strict}""",
        "CREATE INDEX holds_pending ON holds (expires_us) WHERE state = 'pending'",
        "CREATE TABLE documents (digest TEXT PRIMARY KEY, kind TEXT NOT NULL, body {bytes} NOT NULL){strict}",
        "CREATE TABLE log_inbox (seq {key}, kind TEXT NOT NULL, digest TEXT NOT NULL){strict}",
        "CREATE TABLE log_leaves (leaf_index {integer} PRIMARY KEY, kind TEXT NOT NULL, digest TEXT NOT NULL){strict}",
        "CREATE INDEX log_leaves_digest ON log_leaves (digest)",
        """CREATE TABLE log_tiles (
            level {integer} NOT NULL, tile_index {integer} NOT NULL, hashes {bytes} NOT NULL,
            PRIMARY KEY (level, tile_index)){strict}""",
        """CREATE TABLE log_checkpoints (
            size {integer} PRIMARY KEY, note TEXT NOT NULL, time_us {integer} NOT NULL){strict}""",
        # one row per settled usage event; its id is never forgotten
        """CREATE TABLE usage (
            id TEXT PRIMARY KEY, event_digest TEXT NOT NULL, window_id {integer} NOT NULL,
            leaf_index {integer} NOT NULL, tenant TEXT NOT NULL, terms TEXT NOT NULL,
            completion_tokens {integer} NOT NULL, base_only {integer} NOT NULL,
            amount_nanos {integer} NOT NULL, body {bytes} NOT NULL){strict}""",
        """CREATE TABLE quarantine (
            record_digest TEXT PRIMARY KEY, reason TEXT NOT NULL, event_id TEXT, record {bytes} NOT NULL,
            time_us {integer} NOT NULL){strict}""",
        "CREATE TABLE windows (id {integer} PRIMARY KEY, opened_us {integer} NOT NULL, closed_us {integer}){strict}",
        """CREATE TABLE window_terms (
            window_id {integer} NOT NULL REFERENCES windows (id), terms TEXT NOT NULL, events {integer} NOT NULL,
            amount_nanos {integer} NOT NULL, microtokens {integer} NOT NULL, PRIMARY KEY (window_id, terms)){strict}""",
        # net scores in micro-nats
        """CREATE TABLE window_scores (
            window_id {integer} NOT NULL REFERENCES windows (id), terms TEXT NOT NULL, contributor TEXT NOT NULL,
            score {integer} NOT NULL, PRIMARY KEY (window_id, terms, contributor)){strict}""",
        # invoice lines, added up as usage is settled: day is YYYY-MM-DD of the transfer
        """CREATE TABLE usage_totals (
            tenant TEXT NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL, adapter TEXT NOT NULL, kind TEXT NOT NULL,
            unit_nanos {integer} NOT NULL, requests {integer} NOT NULL, quantity {integer} NOT NULL,
            amount_nanos {integer} NOT NULL, PRIMARY KEY (tenant, day, model, adapter, kind, unit_nanos)){strict}""",
        "CREATE TABLE journal_cursors (segment TEXT PRIMARY KEY, next_offset {integer} NOT NULL){strict}",
    ],
    [
        # invoices, credit notes and disputes; what they say is in `documents`, these rows say where they stand
        "CREATE INDEX usage_tenant ON usage (tenant, leaf_index)",
        "CREATE INDEX usage_window ON usage (window_id, terms)",
        "CREATE INDEX transfers_window ON transfers (window_id, terms) WHERE window_id IS NOT NULL",
        "CREATE INDEX log_checkpoints_time ON log_checkpoints (time_us)",
        # the last number given to a document; numbers have no gaps because they are taken in the document's transaction
        """CREATE TABLE billing_sequences (
            issuer TEXT NOT NULL, series TEXT NOT NULL, last {integer} NOT NULL,
            PRIMARY KEY (issuer, series)){strict}""",
        "CREATE TABLE billing_profiles (account TEXT PRIMARY KEY, body {bytes} NOT NULL){strict}",
        # tax_owed_nanos: the part of the tax that the wallet could not pay
        """CREATE TABLE invoices (
            issuer TEXT NOT NULL, number TEXT NOT NULL, tenant TEXT NOT NULL, period TEXT NOT NULL, state TEXT NOT NULL,
            digest TEXT NOT NULL, total_nanos {integer} NOT NULL, tax_nanos {integer} NOT NULL,
            tax_owed_nanos {integer} NOT NULL, PRIMARY KEY (issuer, number),
            CHECK (state IN ('open', 'paid', 'void'))){strict}""",
        "CREATE UNIQUE INDEX invoices_period ON invoices (tenant, period) WHERE state <> 'void'",
        # request_id: the disputed request whose amount it gives back; invoice is null when that was not yet invoiced
        """CREATE TABLE credit_notes (
            issuer TEXT NOT NULL, number TEXT NOT NULL, tenant TEXT NOT NULL, invoice TEXT, period TEXT NOT NULL,
            request_id TEXT, digest TEXT NOT NULL, amount_nanos {integer} NOT NULL, tax_nanos {integer} NOT NULL,
            PRIMARY KEY (issuer, number), CHECK (amount_nanos > 0 AND tax_nanos >= 0)){strict}""",
        "CREATE INDEX credit_notes_tenant ON credit_notes (tenant, period)",
        """CREATE TABLE disputes (
            id TEXT PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, amount_nanos {integer} NOT NULL,
            state TEXT NOT NULL, digest TEXT NOT NULL, credit_note TEXT,
            CHECK (state IN ('open', 'upheld', 'rejected'))){strict}""",
        # every state that a document or dispute was ever in
        """CREATE TABLE billing_states (
            seq {key}, subject TEXT NOT NULL, state TEXT NOT NULL, time_us {integer} NOT NULL,
            reason TEXT NOT NULL){strict}""",
        "CREATE INDEX billing_states_subject ON billing_states (subject)",
    ],
    [
        # signature lines by witnesses of a checkpoint (docs/formats/checkpoint.md)
        """CREATE TABLE log_cosignatures (
            size {integer} NOT NULL, witness TEXT NOT NULL, line TEXT NOT NULL, PRIMARY KEY (size, witness)){strict}""",
        # the entries that people read: everything but usage
        "CREATE INDEX log_leaves_public ON log_leaves (leaf_index) WHERE kind <> 'usage'",
        "CREATE INDEX documents_kind ON documents (kind)",
    ],
    [
        # usage rows know their leaf; an index of random digests was the one page that each of them had to itself
        "DROP INDEX log_leaves_digest",
        "CREATE INDEX log_leaves_public_digest ON log_leaves (digest) WHERE kind <> 'usage'",
    ],
    [
        # a server checks a reference row by row, 20 us a settled event; these two are checked statement by statement
        "{transfer_accounts}",
    ],
    [
        # every turn of settlement asks for the last month that was invoiced
        "CREATE INDEX invoices_month ON invoices (period)",
    ],
]
