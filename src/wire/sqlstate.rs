//! The SQLSTATEs that Tidegate itself sends (PostgreSQL manual, appendix A).

/// 08000: connection exception, of our own making.
pub const CONNECTION_EXCEPTION: &str = "08000";
/// 08001: no server takes the connection.
pub const CANNOT_CONNECT: &str = "08001";
/// 08006: a server connection broke while a unit ran on it.
pub const CONNECTION_FAILURE: &str = "08006";
/// 08P01: the client does not keep to the protocol.
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// 0A000: something that Tidegate does not do.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// 22023: a setting has a value that is not possible.
pub const INVALID_PARAMETER_VALUE: &str = "22023";
/// 25006: a write was told to go to a replica.
pub const READ_ONLY_TRANSACTION: &str = "25006";
/// 25P02: the transaction has failed, and waits for its end.
pub const IN_FAILED_TRANSACTION: &str = "25P02";
/// 26000: no prepared statement of that name.
pub const INVALID_STATEMENT_NAME: &str = "26000";
/// 28000: may not log in.
pub const INVALID_AUTHORIZATION: &str = "28000";
/// 28P01: wrong password.
pub const INVALID_PASSWORD: &str = "28P01";
/// 42704: no such `tidegate.` setting.
pub const UNDEFINED_OBJECT: &str = "42704";
/// 53300: a limit on connections is reached.
pub const TOO_MANY_CONNECTIONS: &str = "53300";
/// 53400: a limit of the configuration is reached.
pub const LIMIT_EXCEEDED: &str = "53400";
/// 57P01: Tidegate is going down.
pub const ADMIN_SHUTDOWN: &str = "57P01";
/// 57P03: no node can take this now.
pub const CANNOT_CONNECT_NOW: &str = "57P03";
/// 57P05: the client was idle for too long.
pub const IDLE_TIMEOUT: &str = "57P05";
/// XX000: a server's error that says not which.
pub const INTERNAL_ERROR: &str = "XX000";
