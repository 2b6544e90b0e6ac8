//! A Markdown table that also reads well as it is.

use std::fmt;

/// Columns are as wide as their widest cell; all but the first and the last are numbers, to the right.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(ToString::to_string).collect()] }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let is_number = |column: usize| column > 0 && column + 1 < columns;
        for (number, row) in self.rows.iter().enumerate() {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if is_number(column) { write!(f, "| {cell:>width$} ")? } else { write!(f, "| {cell:width$} ")? }
            }
            writeln!(f, "|")?;
            if number == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let end = if is_number(column) { ':' } else { '-' };
                    write!(f, "|{:-<width$}{end}", "-", width = width + 1)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["who", "ms", "budget"]);
        table.row(["a".into(), "12.5".into(), "≤ 2".into()]);
        let expected = "\
| who |   ms | budget |
|-----|-----:|--------|
| a   | 12.5 | ≤ 2    |
";
        assert_eq!(table.to_string(), expected);
    }
}
