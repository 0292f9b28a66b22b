//! How rows are laid out in Parquet files.

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

/// Pages of Parquet data. Small ones are made in memory that the allocator has at hand; those of a
/// megabyte, the default, took fresh memory five times over, which cost as much as compressing them.
const PAGE_BYTES: usize = 120 << 10;

/// Integers and times are written as differences, which makes the files both smaller and faster to
/// write; everything is compressed by zstd. What is nearly different in every row has no dictionary,
/// and no smallest and greatest value that anybody would ask for; nor do parts of lists, by which no engine
/// passes over what it need not read.
pub(crate) fn writer_properties(row_group_rows: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_row_count(Some(row_group_rows));
    for column in [
        "detail",
        "ha_udi.list.element.udi_pid",
        "ha_udi.list.element.udi_serial",
        "measurements.list.element.metric",
        "measurements.list.element.start",
        "measurements.list.element.end",
        "measurements.list.element.value",
        "ha_roles.list.element",
    ] {
        let path: Vec<String> = column.split('.').map(str::to_owned).collect();
        properties = properties
            .set_column_statistics_enabled(ColumnPath::from(path), EnabledStatistics::None);
    }
    for column in ["raw", "context", "payload_sha256"] {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_statistics_enabled(column.into(), EnabledStatistics::None);
    }
    for column in ["received_at", "usage_start", "usage_end", "offset"] {
        properties = properties
            .set_column_dictionary_enabled(column.into(), false)
            .set_column_encoding(column.into(), Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}
