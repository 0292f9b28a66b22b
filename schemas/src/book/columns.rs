//! Names and columns of the book's files (contract 2).

/// One file of the book: `NAME.csv`, in the lake's views `book_NAME`.
pub struct TableSpec {
    pub name: &'static str,
    pub columns: &'static [&'static str],
}

pub(super) const ACCOUNTS: TableSpec = TableSpec {
    name: "accounts",
    columns: &["smart_account", "virtual_account", "customer", "currency", "time_zone"],
};
pub(super) const DEVICES: TableSpec = TableSpec {
    name: "devices",
    columns: &[
        "udi_pid",
        "udi_serial",
        "smart_account",
        "virtual_account",
        "valid_from",
        "valid_to",
        "managed_by",
        "license_model",
        "transport",
        "channel",
    ],
};
pub(super) const CATALOG: TableSpec = TableSpec {
    name: "catalog",
    columns: &[
        "entitlement_tag",
        "name",
        "enforcement",
        "duration",
        "postpaid_allowed",
        "equivalence",
    ],
};
pub(super) const SUBSCRIPTIONS: TableSpec = TableSpec {
    name: "subscriptions",
    columns: &[
        "subscription_id",
        "smart_account",
        "virtual_account",
        "entitlement_tag",
        "billing_model",
        "committed_quantity",
        "price_plan",
        "start",
        "end",
    ],
};
pub(super) const PURCHASES: TableSpec = TableSpec {
    name: "purchases",
    columns: &[
        "purchase_id",
        "smart_account",
        "virtual_account",
        "entitlement_tag",
        "quantity",
        "start",
        "end",
        "price_plan",
    ],
};
pub(super) const PRICES: TableSpec = TableSpec {
    name: "prices",
    columns: &[
        "price_plan",
        "entitlement_tag",
        "charge",
        "valid_from",
        "measure",
        "tier_mode",
        "tier_up_to",
        "unit_price",
        "package_size",
        "currency",
    ],
};
pub(super) const TRUST_CODES: TableSpec = TableSpec {
    name: "trust_codes",
    columns: &[
        "udi_pid",
        "udi_serial",
        "origin",
        "algorithm",
        "public_key",
        "valid_from",
        "valid_to",
    ],
};
pub(super) const POLICIES: TableSpec = TableSpec {
    name: "policies",
    columns: &[
        "scope",
        "scope_id",
        "enforcement",
        "duration",
        "ack_required",
        "first_report_days",
        "reporting_frequency_days",
        "report_on_change_days",
    ],
};
pub(super) const AUTHORIZATIONS: TableSpec = TableSpec {
    name: "authorizations",
    columns: &[
        "udi_pid",
        "udi_serial",
        "kind",
        "entitlement_tag",
        "code_version",
        "installed_at",
        "returned_at",
    ],
};
pub(super) const ACKS: TableSpec = TableSpec {
    name: "acks",
    columns: &["udi_pid", "udi_serial", "report_id", "acked_at", "installed_at"],
};

/// Accounts of the operator's general ledger, for `export ledger`.
pub(super) const GL_ACCOUNTS: TableSpec = TableSpec {
    name: "gl_accounts",
    columns: &["pool", "charge", "debit_account", "credit_account"],
};

/// All files of a book, accounts first: the others refer to them.
pub const TABLES: &[&TableSpec] = &[
    &ACCOUNTS,
    &DEVICES,
    &CATALOG,
    &SUBSCRIPTIONS,
    &PURCHASES,
    &PRICES,
    &TRUST_CODES,
    &POLICIES,
    &AUTHORIZATIONS,
    &ACKS,
    &GL_ACCOUNTS,
];
