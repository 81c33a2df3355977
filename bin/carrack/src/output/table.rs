//! Columns for people: left-aligned, three spaces apart, no lines, as Docker
//! prints them.

/// A table under construction.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds one row; its cells stand under the headings in order.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A cell never breaks the line or moves the cursor, whatever a label says.
        let clean = |cell: String| cell.replace(|letter: char| letter.is_control(), " ");
        self.rows.push(cells.into_iter().map(clean).collect());
    }

    /// The whole table as text, with a line end after each row.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        let mut text = String::new();
        for row in &self.rows {
            let padded = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
            text.push_str(padded.collect::<Vec<_>>().join("   ").trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints the table on stdout.
    pub(crate) fn print(&self) {
        super::raw(self.render().as_bytes()).ok(); // A closed pipe ends `| head`; nobody is left to tell.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["shop-api-1".to_owned(), "up".to_owned()]);
        assert_eq!(table.render(), "NAME         STATE\nshop-api-1   up\n");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor() {
        let mut table = Table::new(&["NAME"]);
        table.row(["a\u{1b}[2J\nb".to_owned()]);
        assert_eq!(table.render(), "NAME\na [2J b\n");
    }
}
