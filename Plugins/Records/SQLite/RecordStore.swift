import CSQLite
import Contracts
import Glibc
import Kernel
import LinuxSystem
import Synchronization

/// One SQLite database in WAL mode with one connection, on which the statements stay prepared
/// (https://www.sqlite.org/wal.html).
///
/// A commit waits for the disk only when the writer asked for it; the log is folded into the database by a thread of
/// its own, so that no writer waits for that either.
final class RecordStore: @unchecked Sendable {
  // Unchecked: `database`, the statements and `foldsAt` are used only while `lock` is held.

  /// What `PRAGMA user_version` says of a database with the tables below.
  static let schemaVersion: Int32 = 1
  /// Pages of 4 KiB in the write-ahead log above which it is folded into the database.
  static let checkpointPages: Int32 = 1000
  /// Databases up to this many bytes are checked as they are opened: it takes under a millisecond.
  static let checkedSize: Int64 = 1 << 20

  private let path: String
  private let lock = Mutex(())
  private var database: OpaquePointer?
  private var putStatement: OpaquePointer?
  private var deleteStatement: OpaquePointer?
  private var readStatement: OpaquePointer?
  private var synchronous: Durability?
  /// How long the log is when it is folded next. A log whose writers never pause gets no shorter by it: what they append
  /// meanwhile keeps it from beginning anew, and to fold it again for each of them would cost more than their writing.
  private var foldsAt = checkpointPages
  private let isFolding = Atomic(false)
  /// How often the log was folded by a thread of its own.
  let folds = Atomic(0)

  /// Opens the database, making it (mode 0600) when it is not there.
  ///
  /// - Throws: `corrupt` that names the file for one that does not read as a database, `versionMismatch` for one that a
  ///   newer engine wrote.
  init(path: String) throws(EngineError) {
    self.path = path
    do {
      // SQLite gives the write-ahead log the mode of the database.
      let file = try Files.open(path, O_RDWR | O_CREAT, mode: 0o600)
      _ = fchmod(file.number, 0o600)
    } catch {
      throw EngineError(.internalFailure, "the record store cannot be opened: \(error)")
    }
    do {
      try open()
    } catch {
      sqlite3_finalize(putStatement)
      sqlite3_finalize(deleteStatement)
      sqlite3_finalize(readStatement)
      sqlite3_close_v2(database)
      database = nil
      throw error
    }
  }

  deinit { close() }

  private func open() throws(EngineError) {
    let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE
    try check(sqlite3_open_v2(path, &database, flags, nil))
    sqlite3_busy_timeout(database, 5000)
    try execute("PRAGMA journal_mode=WAL")
    try execute("PRAGMA journal_size_limit=\(Int(Self.checkpointPages) * 4096)")
    // Debian's SQLite would write zeros over each page that becomes free: as much again as was in it.
    try execute("PRAGMA secure_delete=FAST")
    sqlite3_wal_autocheckpoint(database, 0)
    let version = try integer("PRAGMA user_version")
    guard version <= Self.schemaVersion else {
      throw EngineError(
        .versionMismatch,
        "\(path) was written by a newer engine (version \(version) of its tables, this engine knows "
          + "\(Self.schemaVersion)); start that engine, or take another --root")
    }
    if version == 0 {
      try execute("BEGIN IMMEDIATE")
      try execute(
        "CREATE TABLE IF NOT EXISTS records (kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, "
          + "PRIMARY KEY (kind, key)) WITHOUT ROWID")
      try execute("PRAGMA user_version=\(Self.schemaVersion)")
      try execute("COMMIT")
    }
    if let size = Files.status(path)?.st_size, Int64(size) <= Self.checkedSize { try quickCheck() }
    putStatement = try prepare("INSERT OR REPLACE INTO records (kind, key, value) VALUES (?, ?, ?)")
    deleteStatement = try prepare("DELETE FROM records WHERE kind = ? AND key = ?")
    readStatement = try prepare("SELECT key, value FROM records WHERE kind = ? ORDER BY key")
    let store = Unmanaged.passUnretained(self).toOpaque()
    sqlite3_wal_hook(
      database,
      { store, database, _, pages in
        if let store { Unmanaged<RecordStore>.fromOpaque(store).takeUnretainedValue().logged(pages, database) }
        return SQLITE_OK
      }, store)
  }

  /// Folds the log and closes the database; afterwards every request is refused.
  func close() {
    lock.withLock { _ in
      guard database != nil else { return }
      sqlite3_finalize(putStatement)
      sqlite3_finalize(deleteStatement)
      sqlite3_finalize(readStatement)
      sqlite3_wal_hook(database, nil, nil)
      sqlite3_wal_checkpoint_v2(database, nil, SQLITE_CHECKPOINT_TRUNCATE, nil, nil)
      sqlite3_close_v2(database)
      database = nil
    }
  }

  // MARK: Requests

  /// Writes and deletes in one transaction: after an error nothing of it is there.
  ///
  /// - Throws: `resourceExhausted` when the disk is full, `corrupt` when the file does not read back.
  func write(_ request: RecordWrite) throws(EngineError) {
    if request.put.isEmpty && request.delete.isEmpty { return }
    try locked { () throws(EngineError) in
      if synchronous != request.durability {
        try execute("PRAGMA synchronous=\(request.durability == .power ? "FULL" : "NORMAL")")
        synchronous = request.durability
      }
      // One statement is a transaction by itself.
      if request.put.count + request.delete.count == 1 { return try change(request) }
      try execute("BEGIN IMMEDIATE")
      do throws(EngineError) {
        try change(request)
        try execute("COMMIT")
      } catch {
        if sqlite3_get_autocommit(database) == 0 { sqlite3_exec(database, "ROLLBACK", nil, nil, nil) }
        throw error
      }
    }
  }

  private func change(_ request: RecordWrite) throws(EngineError) {
    for key in request.delete { try run(deleteStatement, key.kind, key.key) }
    for record in request.put { try run(putStatement, record.kind, record.key, record.value) }
  }

  /// All records of a kind by ascending key.
  func read(kind: String) throws(EngineError) -> [Record] {
    try locked { () throws(EngineError) -> [Record] in
      try bind(readStatement, 1, kind)
      defer { sqlite3_reset(readStatement) }
      var records: [Record] = []
      while true {
        let result = sqlite3_step(readStatement)
        if result == SQLITE_DONE { return records }
        guard result == SQLITE_ROW else { throw failure(result) }
        records.append(Record(kind: kind, key: text(readStatement, 0), value: text(readStatement, 1)))
      }
    }
  }

  private func locked<Value: Sendable>(_ body: () throws(EngineError) -> Value) throws(EngineError) -> Value {
    try lock.withLock { _ throws(EngineError) -> Value in
      guard database != nil else { throw EngineError(.unavailable, "the record store is closed") }
      return try body()
    }
  }

  /// A writer's transaction is in the log, which has so many pages now.
  private func logged(_ pages: Int32, _ database: OpaquePointer?) {
    if pages < Self.checkpointPages {
      // It has begun anew.
      foldsAt = Self.checkpointPages
    } else if pages >= Self.checkpointPages * 4 {
      // Writers that never pause keep the other thread from ever reaching the log's end: one of them does it.
      sqlite3_wal_checkpoint_v2(database, nil, SQLITE_CHECKPOINT_PASSIVE, nil, nil)
    } else if pages >= foldsAt {
      foldsAt = pages + Self.checkpointPages
      fold()
    }
  }

  /// Copies the log into the database on a thread and a connection of its own; writers go on meanwhile.
  private func fold() {
    guard isFolding.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged else {
      return
    }
    folds.add(1, ordering: .relaxed)
    let started = Thread.start { [weak self] in
      guard let self else { return }
      defer { self.isFolding.store(false, ordering: .releasing) }
      var connection: OpaquePointer?
      if sqlite3_open_v2(self.path, &connection, SQLITE_OPEN_READWRITE, nil) == SQLITE_OK {
        sqlite3_wal_autocheckpoint(connection, 0)
        sqlite3_wal_checkpoint_v2(connection, nil, SQLITE_CHECKPOINT_PASSIVE, nil, nil)
      }
      sqlite3_close_v2(connection)
    }
    if !started { isFolding.store(false, ordering: .releasing) }
  }

  // MARK: SQLite

  private func quickCheck() throws(EngineError) {
    let statement = try prepare("PRAGMA quick_check(1)")
    defer { sqlite3_finalize(statement) }
    let result = sqlite3_step(statement)
    guard result == SQLITE_ROW else { throw failure(result) }
    let answer = text(statement, 0)
    guard answer == "ok" else { throw corrupt(answer) }
  }

  private func integer(_ sql: String) throws(EngineError) -> Int32 {
    let statement = try prepare(sql)
    defer { sqlite3_finalize(statement) }
    let result = sqlite3_step(statement)
    guard result == SQLITE_ROW else { throw failure(result) }
    return sqlite3_column_int(statement, 0)
  }

  private func execute(_ sql: String) throws(EngineError) {
    try check(sqlite3_exec(database, sql, nil, nil, nil))
  }

  private func prepare(_ sql: String) throws(EngineError) -> OpaquePointer? {
    var statement: OpaquePointer?
    try check(sqlite3_prepare_v3(database, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil))
    return statement
  }

  private func run(_ statement: OpaquePointer?, _ values: String...) throws(EngineError) {
    for (index, value) in values.enumerated() { try bind(statement, Int32(index + 1), value) }
    let result = sqlite3_step(statement)
    sqlite3_reset(statement)
    guard result == SQLITE_DONE else { throw failure(result) }
  }

  private func bind(_ statement: OpaquePointer?, _ index: Int32, _ value: String) throws(EngineError) {
    // SQLITE_TRANSIENT, which C defines as a cast that Swift does not import: SQLite copies the text.
    let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
    var value = value
    let result = value.withUTF8 { bytes in
      bytes.withMemoryRebound(to: CChar.self) {
        sqlite3_bind_text64(
          statement, index, $0.baseAddress, sqlite3_uint64($0.count), transient, UInt8(SQLITE_UTF8))
      }
    }
    // A nil base address binds NULL, which the columns refuse: an empty text is given a place.
    if value.isEmpty { sqlite3_bind_text(statement, index, "", 0, transient) }
    try check(result)
  }

  private func text(_ statement: OpaquePointer?, _ column: Int32) -> String {
    guard let bytes = sqlite3_column_text(statement, column) else { return "" }
    let count = Int(sqlite3_column_bytes(statement, column))
    return String(decoding: UnsafeBufferPointer(start: bytes, count: count), as: UTF8.self)
  }

  private func check(_ result: Int32) throws(EngineError) {
    if result != SQLITE_OK { throw failure(result) }
  }

  private func corrupt(_ detail: String) -> EngineError {
    EngineError(
      .corrupt,
      "the record store \(path) is corrupt (\(detail)); restore it from a copy, or move it away to start empty")
  }

  /// The error of the last call on the connection (https://www.sqlite.org/rescode.html).
  private func failure(_ result: Int32) -> EngineError {
    let words = String(cString: sqlite3_errmsg(database))
    let number = sqlite3_system_errno(database)
    switch result & 0xff {
    case SQLITE_CORRUPT, SQLITE_NOTADB:
      return corrupt(words)
    case SQLITE_FULL,
      SQLITE_IOERR where number == ENOSPC || number == EDQUOT:
      return EngineError(
        .resourceExhausted, "no space left on the disk for \(path), so nothing was written: free some and try again")
    case SQLITE_IOERR, SQLITE_CANTOPEN:
      let reason = number == 0 ? words : "\(words): \(SystemCallError.text(number))"
      return EngineError(.internalFailure, "the record store \(path) cannot be read or written: \(reason)")
    case SQLITE_READONLY:
      return EngineError(.permissionDenied, "the record store \(path) is read-only")
    case SQLITE_BUSY:
      return EngineError(.conflict, "the record store \(path) is in use by another process")
    default:
      return EngineError(.internalFailure, "the record store \(path): \(words)")
    }
  }
}
