import CLinux
import Glibc
import LinuxSystem
import ShimProtocol

/// The numbers a process runs as.
struct Identity: Equatable {
  var user: UInt32 = 0
  var group: UInt32 = 0
  var supplementary: [UInt32] = []
  /// From the passwd file; `/` for a user who is not in it.
  var home = "/"
}

/// Finds users and groups in the container's own passwd(5) and group(5), which are hostile input: any bytes, of any
/// length, perhaps not even files. The rules are those of Docker (moby/sys/user, GetExecUser).
enum Users {
  /// Identifiers of users and groups are at most 2^31 - 1, as Docker has it.
  private static let maximum: UInt64 = 0x7fff_ffff
  /// Bytes of passwd or group that are read at most.
  private static let limit = 8 << 20

  /// - Parameters:
  ///   - passwd: The content of the passwd file, empty where there is none; likewise `group`.
  static func resolve(
    _ specification: String, additional: [String], passwd: [UInt8], group: [UInt8]
  ) throws(SetupFailure) -> Identity {
    let parts = specification.utf8.split(separator: 58, maxSplits: 1, omittingEmptySubsequences: false)
    let userText = parts.isEmpty ? [] : Array(parts[0])
    let groupText = parts.count > 1 ? Array(parts[1]) : []
    var identity = Identity()
    var name: [UInt8] = []
    let userNumber = number(userText)
    var isFound = false
    for line in passwd.split(separator: 10) {
      let fields = line.split(separator: 58, omittingEmptySubsequences: false)
      guard fields.count >= 4, let id = number(fields[2]), let primary = number(fields[3]) else { continue }
      let matches =
        userText.isEmpty ? id == 0 : fields[0].elementsEqual(userText) || (userNumber != nil && id == userNumber)
      guard matches, id <= maximum, primary <= maximum else { continue }
      identity.user = UInt32(id)
      identity.group = UInt32(primary)
      name = Array(fields[0])
      if fields.count > 5, !fields[5].isEmpty { identity.home = String(decoding: fields[5], as: UTF8.self) }
      isFound = true
      break
    }
    if !isFound && !userText.isEmpty {
      guard let userNumber else {
        let shown = String(decoding: userText, as: UTF8.self)
        throw SetupFailure(.invalidArgument, "unable to find user \(shown): no matching entries in passwd file")
      }
      guard userNumber <= maximum else { throw outOfRange }
      identity.user = UInt32(userNumber)
    }
    if groupText.isEmpty {
      if !name.isEmpty { identity.supplementary = groups(of: name, in: group) }
    } else {
      identity.group = try find(group: groupText, in: group)
    }
    for text in additional {
      let found = try find(group: Array(text.utf8), in: group)
      if !identity.supplementary.contains(found) { identity.supplementary.append(found) }
    }
    // The primary group is a supplementary one too, so that no negative permission of that group is got around by
    // calling setgid (CVE-2022-36109).
    identity.supplementary.removeAll { $0 == identity.group }
    identity.supplementary.insert(identity.group, at: 0)
    return identity
  }

  /// Reads `path` of the current root, following links within it only.
  static func read(_ path: String) -> [UInt8] {
    guard let root = try? Files.open("/", O_PATH | O_DIRECTORY),
      let file = try? Files.open(inRoot: root.number, path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
    else { return [] }
    var status = stat()
    guard fstat(file.number, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size <= limit else {
      return []
    }
    return (try? Files.readAll(file.number, limit: limit)) ?? []
  }

  private static func groups(of name: [UInt8], in content: [UInt8]) -> [UInt32] {
    var found: [UInt32] = []
    for line in content.split(separator: 10) {
      let fields = line.split(separator: 58, omittingEmptySubsequences: false)
      guard fields.count >= 4, let id = number(fields[2]), id <= maximum else { continue }
      let isMember = fields[3].split(separator: 44).contains { $0.elementsEqual(name) }
      // The kernel takes 65 536 groups (NGROUPS_MAX); a file that lists more is cut rather than refused.
      if isMember, !found.contains(UInt32(id)), found.count < 65_536 { found.append(UInt32(id)) }
    }
    return found
  }

  private static func find(group text: [UInt8], in content: [UInt8]) throws(SetupFailure) -> UInt32 {
    let wanted = number(text)
    for line in content.split(separator: 10) {
      let fields = line.split(separator: 58, omittingEmptySubsequences: false)
      guard fields.count >= 3, let id = number(fields[2]), id <= maximum else { continue }
      if fields[0].elementsEqual(text) || id == wanted { return UInt32(id) }
    }
    guard let wanted else {
      let shown = String(decoding: text, as: UTF8.self)
      throw SetupFailure(.invalidArgument, "unable to find group \(shown): no matching entries in group file")
    }
    guard wanted <= maximum else { throw outOfRange }
    return UInt32(wanted)
  }

  private static var outOfRange: SetupFailure {
    SetupFailure(.invalidArgument, "uids and gids must be in range 0-2147483647")
  }

  /// Decimal digits as a number; nil for anything else, and for what does not fit.
  private static func number(_ text: some Collection<UInt8>) -> UInt64? {
    guard !text.isEmpty, text.count <= 18 else { return nil }
    var value: UInt64 = 0
    for byte in text {
      guard byte >= 48 && byte <= 57 else { return nil }
      value = value * 10 + UInt64(byte - 48)
    }
    return value
  }
}
