//! What clients ask a PostgreSQL server about itself.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;

/// The version of PostgreSQL whose protocol and catalog are answered for.
const VERSION: &str = "16.6";

/// A setting as PostgreSQL would have it; `None` where there is none of that name.
fn setting(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "server_version" => VERSION,
        "server_version_num" => "160006",
        "server_encoding" | "client_encoding" => "UTF8",
        "timezone" => "UTC",
        "search_path" => "\"$user\", public",
        "default_transaction_read_only" | "transaction_read_only" => "on",
        "standard_conforming_strings" | "integer_datetimes" => "on",
        "datestyle" => "ISO, MDY",
        _ => return None,
    })
}

/// Makes `version()`, `current_setting(name)` and `current_user` answer as clients expect.
pub(crate) fn register(session: &SessionContext, login: &str) {
    let about =
        format!("PostgreSQL {VERSION} (rumledger {}, read-only)", env!("CARGO_PKG_VERSION"));
    for (name, text) in [("version", about), ("session_user", login.to_owned())] {
        let constant = ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)));
        let answer = Arc::new(move |_: &[ColumnarValue]| Ok(constant.clone()));
        let function = create_udf(name, vec![], DataType::Utf8, Volatility::Stable, answer);
        let aliases: &[&str] = if name == "session_user" { &["current_user", "user"] } else { &[] };
        session.register_udf(function.with_aliases(aliases.iter().copied()));
    }
    let answer = Arc::new(|args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let names = ColumnarValue::values_to_arrays(args)?;
        let names = cast(&names[0], &DataType::Utf8)?;
        let values = names.as_string::<i32>().iter().map(|name| name.and_then(setting));
        Ok(ColumnarValue::Array(Arc::new(values.collect::<StringArray>()) as ArrayRef))
    });
    session.register_udf(create_udf(
        "current_setting",
        vec![DataType::Utf8],
        DataType::Utf8,
        Volatility::Stable,
        answer,
    ));
}
