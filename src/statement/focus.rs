//! The statement as FOCUS 1.2 (FinOps Open Cost and Usage Specification), cost and usage dataset, CSV.
//!
//! All 21 mandatory columns, and those that their conditions ask for here; periods are half-open and in
//! UTC; an adjustment of a closed period is a `Correction`; what is rumledger's own begins with `x_`.

use std::collections::HashMap;

use schemas::book::{Account, Book};
use schemas::ledger::{Charge, Kind, Line};
use schemas::period::{Period, rfc3339};
use schemas::quantity::{QUANTITY_SCALE, decimal_text, money_text};

use super::unit;

/// Who the parties of a bill are, as FOCUS names them.
#[derive(Clone, Debug)]
pub struct Parties {
    pub invoice_issuer: String,
    pub provider: String,
    pub publisher: String,
}

const COLUMNS: [&str; 41] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "x_Cause",
    "x_Charge",
    "x_ConsumedMeasure",
    "x_Customer",
    "x_EntitlementTag",
    "x_EvidenceRoot",
    "x_LineId",
    "x_Pool",
    "x_PurchasedMeasure",
    "x_ServicePeriod",
    "x_VerifiedShare",
];

/// The file's bytes.
pub fn write(
    period: Period,
    lines: &[Line],
    book: &Book,
    parties: &Parties,
) -> anyhow::Result<Vec<u8>> {
    let accounts: HashMap<(&str, &str), &Account> =
        book.accounts.iter().map(|a| ((a.id.smart.as_str(), a.id.virtual_.as_str()), a)).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for line in lines {
        let key = (line.key.smart_account.as_str(), line.key.virtual_account.as_str());
        // An account that the book does not know any more has its months in UTC.
        let zone = accounts.get(&key).map_or(jiff::tz::TimeZone::UTC, |a| a.zone.clone());
        let (start, end) = period.bounds(&zone);
        let row = |column: &str| cell(column, line, (&rfc3339(start), &rfc3339(end)), parties);
        // As they are: FOCUS wants casing and spacing kept, and account ids that no other account has.
        csv.write_record(COLUMNS.iter().map(|column| row(column)))?;
    }
    Ok(csv.into_inner()?)
}

fn cell(column: &str, line: &Line, (start, end): (&str, &str), parties: &Parties) -> String {
    let amount = || money_text(line.amount, &line.currency);
    let quantity = |value| decimal_text(value, QUANTITY_SCALE);
    let is_usage = line.key.charge == Charge::Usage;
    match column {
        "BilledCost" | "ContractedCost" | "EffectiveCost" | "ListCost" => amount(),
        "BillingAccountId" => line.key.smart_account.clone(),
        "BillingAccountName" => line.customer.clone(),
        "BillingAccountType" => "Smart Account".to_owned(),
        "BillingCurrency" => line.currency.clone(),
        "BillingPeriodEnd" => end.to_owned(),
        "BillingPeriodStart" => start.to_owned(),
        // A commitment is due for the month that it covers, so it is no purchase for later use.
        "ChargeCategory" => "Usage".to_owned(),
        "ChargeClass" => {
            let corrects =
                line.kind == Kind::Adjustment && line.service_period < line.posted_period;
            if corrects { "Correction" } else { "" }.to_owned()
        }
        "ChargeDescription" => describe(line),
        "ChargeFrequency" => if is_usage { "Usage-Based" } else { "Recurring" }.to_owned(),
        "ChargePeriodEnd" => rfc3339(line.segment_end),
        "ChargePeriodStart" => rfc3339(line.key.segment_start),
        "ConsumedQuantity" | "PricingQuantity" => quantity(line.quantity),
        "ConsumedUnit" | "PricingUnit" => unit(line).to_owned(),
        // The statement that the line stands on, of one customer and currency; the operator's own numbers are given
        // elsewhere.
        "InvoiceId" => {
            let (account, customer) = (&line.key.smart_account, &line.customer);
            format!("{}/{account}/{customer}/{}", line.posted_period, line.currency)
        }
        "InvoiceIssuerName" => parties.invoice_issuer.clone(),
        "ProviderName" => parties.provider.clone(),
        "PublisherName" => parties.publisher.clone(),
        "ServiceCategory" => "Networking".to_owned(),
        "ServiceName" => "Cisco Smart Licensing".to_owned(),
        "ServiceSubcategory" => "Other (Networking)".to_owned(),
        "SubAccountId" => format!("{}/{}", line.key.smart_account, line.key.virtual_account),
        "SubAccountName" => line.key.virtual_account.clone(),
        "SubAccountType" => "Virtual Account".to_owned(),
        "x_Cause" => line.cause.clone(),
        "x_Charge" => line.key.charge.as_str().to_owned(),
        "x_Customer" => line.customer.clone(),
        "x_ConsumedMeasure" => quantity(line.consumed),
        "x_EntitlementTag" => line.key.item.clone(),
        "x_EvidenceRoot" => line.evidence_root.clone(),
        "x_LineId" => line.line_id.clone(),
        "x_Pool" => line.key.pool.as_str().to_owned(),
        "x_PurchasedMeasure" => quantity(line.purchased),
        "x_ServicePeriod" => line.service_period.to_string(),
        "x_VerifiedShare" => line.verified_share.map(quantity).unwrap_or_default(),
        _ => String::new(),
    }
}

fn describe(line: &Line) -> String {
    let what = match line.key.charge {
        Charge::Usage => "beyond what was purchased",
        Charge::Commit => "committed",
    };
    let subscription = match line.key.subscription_id.as_str() {
        "" => String::new(),
        id => format!(", subscription {id}"),
    };
    let adjusts = match line.kind {
        Kind::Charge => String::new(),
        Kind::Adjustment => format!(", adjustment of {} ({})", line.service_period, line.cause),
    };
    format!("{} {what}{subscription}{adjusts}", line.key.item)
}
