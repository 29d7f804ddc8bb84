//! Reads the proxy's own metrics, as Prometheus would.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One line of the page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label; empty if it has none of that name.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

/// Asks for a path: the status code, and the body.
///
/// # Errors
/// Nobody answers, or not in HTTP.
pub async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("no HTTP"))?;
    let code =
        head.split(' ').nth(1).and_then(|c| c.parse().ok()).ok_or_else(|| io::Error::other("no HTTP"))?;
    Ok((code, body.to_owned()))
}

/// Reads a page of metrics.
#[must_use]
pub fn parse(page: &str) -> Vec<Sample> {
    page.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
}

fn line(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(Sample { name: series.to_owned(), labels: Vec::new(), value });
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while let Some((label, behind)) = rest.split_once("=\"") {
        // None of our own label values holds a quote.
        let (text, tail) = behind.split_once('"')?;
        labels.push((label.trim_start_matches(',').to_owned(), text.to_owned()));
        rest = tail;
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read() {
        let found = parse("# HELP x y\na_total{node=\"h:1\",why=\"read\"} 3\nb 0.5\n# EOF\n");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].label("node"), found[0].label("why"), found[0].value), ("h:1", "read", 3.0));
        assert_eq!((found[1].name.as_str(), found[1].value), ("b", 0.5));
    }
}
