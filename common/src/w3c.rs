//! Lines of a W3C extended log, in the fields that IIS wrote for Exchange 2003.
//!
//! An empty value is `-`, blanks become `+`, times are UTC. Values that come from outside are escaped: nobody can write a line
//! of their own or another field. Not here: files, rotation.

use jiff::{Timestamp, tz::TimeZone};

/// The fields of each line, in their order.
pub const FIELDS: &str = "date time s-sitename s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip \
                          cs(User-Agent) sc-status sc-substatus sc-win32-status sc-bytes cs-bytes time-taken";

/// One request as the log tells of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line<'a> {
    /// Unix milliseconds at the end of the request.
    pub unix_millis: i64,
    /// Name of this server's service.
    pub site: &'a str,
    /// Own address.
    pub server_ip: &'a str,
    /// Method.
    pub method: &'a str,
    /// Path, encoded as received.
    pub stem: &'a str,
    /// Query, without `?`.
    pub query: &'a str,
    /// Own port.
    pub port: u16,
    /// Who, if known.
    pub user: &'a str,
    /// The other side's address.
    pub client_ip: &'a str,
    /// User-Agent.
    pub agent: &'a str,
    /// Status.
    pub status: u16,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Bytes of the request's body.
    pub received: u64,
    /// Milliseconds.
    pub taken_millis: u64,
}

/// The head of a log file and of every new file after rotation.
pub fn head(unix_millis: i64) -> String {
    let (date, time) = date_time(unix_millis);
    format!("#Software: directpush\n#Version: 1.0\n#Date: {date} {time}\n#Fields: {FIELDS}\n")
}

impl Line<'_> {
    /// The line, with its end.
    pub fn format(&self) -> String {
        let (date, time) = date_time(self.unix_millis);
        format!(
            "{date} {time} {} {} {} {} {} {} {} {} {} {} 0 0 {} {} {}\n",
            value(self.site),
            value(self.server_ip),
            value(self.method),
            value(self.stem),
            value(self.query),
            self.port,
            value(self.user),
            value(self.client_ip),
            value(self.agent),
            self.status,
            self.sent,
            self.received,
            self.taken_millis
        )
    }
}

/// The query of an ActiveSync request as the log shows it: the four keys that log scripts look for first, in their
/// order, then `Log=` with what became of the request.
pub fn activesync_query(user: &str, device_id: &str, device_type: &str, command: &str, log: &str) -> String {
    let [user, device_id, device_type, log] = [user, device_id, device_type, log].map(query_value);
    format!("User={user}&DeviceId={device_id}&DeviceType={device_type}&Cmd={command}&Log={log}")
}

/// One value inside a query: neither `&` nor `=` nor anything that ends a field.
fn query_value(text: &str) -> String {
    value_with(text, "&=%+#")
}

/// One field: never empty, never with a blank or a control character, bounded.
fn value(text: &str) -> String {
    if text.is_empty() { "-".into() } else { value_with(text, "") }
}

/// Bytes of one field, at most, before escaping.
const FIELD_BYTES_MAX: usize = 1024;

fn value_with(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if out.len() >= FIELD_BYTES_MAX {
            break;
        }
        match c {
            ' ' => out.push('+'),
            _ if c.is_control() || c == '"' || also.contains(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("%{byte:02X}"));
                }
            }
            _ => out.push(c),
        }
    }
    out
}

fn date_time(unix_millis: i64) -> (String, String) {
    let timestamp = Timestamp::from_millisecond(unix_millis).unwrap_or(Timestamp::UNIX_EPOCH);
    let utc = timestamp.to_zoned(TimeZone::UTC);
    (utc.strftime("%Y-%m-%d").to_string(), utc.strftime("%H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_values_as_there_are_fields() {
        let line = Line {
            unix_millis: 1_319_909_756_000,
            site: "W3SVC1",
            method: "GET",
            stem: "/exchange/x/AutdState.xml",
            user: "DOM\\us er",
            agent: "Microsoft-Server-ActiveSync/6.5.7653.5",
            status: 200,
            ..Line::default()
        };
        let text = line.format();
        assert!(
            text.starts_with("2011-10-29 17:35:56 W3SVC1 - GET /exchange/x/AutdState.xml - 0 DOM\\us+er - ")
        );
        assert_eq!(text.trim_end().split(' ').count(), FIELDS.split_whitespace().count());
    }

    #[test]
    fn nobody_writes_a_line_or_a_key_of_their_own() {
        let query = activesync_query("a&Cmd=x", "d\r\n2011", "t t", "Ping", "Hb480");
        assert_eq!(query, "User=a%26Cmd%3Dx&DeviceId=d%0D%0A2011&DeviceType=t+t&Cmd=Ping&Log=Hb480");
        let line = Line { agent: "a\nb\"", query: "x\u{85}", ..Line::default() }.format();
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("a%0Ab%22") && line.contains("x%C2%85"));
        let long = "x".repeat(100_000);
        assert!(Line { stem: &long, ..Line::default() }.format().len() < 2000);
    }

    #[test]
    fn the_head_names_the_fields() {
        assert!(head(0).contains("#Fields: date time ") && head(0).contains("#Date: 1970-01-01 00:00:00"));
    }
}
