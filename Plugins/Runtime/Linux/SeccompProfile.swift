import Contracts
import Wire

/// A seccomp profile in Docker's JSON form, read and narrowed to this machine and one set of capabilities (moby,
/// profiles/seccomp; OCI runtime specification, config-linux.md, "Seccomp").
struct SeccompProfile: Sendable, Equatable {
  struct Comparison: Sendable, Equatable {
    var index: UInt32
    var operation: Operation
    var value: UInt64
    var second: UInt64
  }

  enum Operation: String, Sendable {
    case notEqual = "SCMP_CMP_NE"
    case less = "SCMP_CMP_LT"
    case lessOrEqual = "SCMP_CMP_LE"
    case equal = "SCMP_CMP_EQ"
    case greaterOrEqual = "SCMP_CMP_GE"
    case greater = "SCMP_CMP_GT"
    case maskedEqual = "SCMP_CMP_MASKED_EQ"
  }

  struct Rule: Sendable, Equatable {
    var names: [String]
    /// As the kernel takes it (seccomp(2), SECCOMP_RET_*).
    var action: UInt32
    var comparisons: [Comparison]
  }

  /// What narrows a profile.
  struct Machine: Sendable {
    /// As Go names it: `amd64`, `arm64`.
    var architecture: String
    /// One bit a capability.
    var capabilities: UInt64
    /// Major and minor version of the kernel.
    var kernel: [Int]
  }

  /// Nil where the profile filters nothing.
  var defaultAction: UInt32?
  /// Names such as `x86_64` of libseccomp.
  var architectures: [String] = []
  var rules: [Rule] = []

  /// - Throws: `invalidArgument` in one line that names the place in the profile.
  init(_ text: String, on machine: Machine) throws(EngineError) {
    let root: JSONValue
    do {
      root = try JSON.parse(text.utf8)
    } catch {
      throw Self.refusal(error.message)
    }
    let reader = SeccompReader(machine: machine)
    guard case .object = root else { throw Self.refusal("the profile must be a JSON object") }
    let calls = try reader.array(root["syscalls"], "syscalls")
    // Nothing said at all is no filter at all.
    guard let named = root["defaultAction"], named != .string("") else {
      if calls.isEmpty { return }
      throw Self.refusal("defaultAction is missing")
    }
    defaultAction = try reader.action(
      named, "defaultAction", number: root["defaultErrnoRet"], "defaultErrnoRet")
    architectures = try reader.architectures(root)
    for (index, call) in calls.enumerated() {
      if let rule = try reader.rule(call, "syscalls[\(index)]") { rules.append(rule) }
    }
  }

  static func refusal(_ why: String) -> EngineError {
    EngineError(.invalidArgument, "Decoding seccomp profile failed: \(why)")
  }
}

/// Reads the parts of a profile; each is given the place at which it stands.
private struct SeccompReader {
  let machine: SeccompProfile.Machine

  private func refusal(_ place: String, _ why: String) -> EngineError { SeccompProfile.refusal("\(place): \(why)") }

  func array(_ value: JSONValue?, _ place: String) throws(EngineError) -> [JSONValue] {
    switch value {
    case nil, .null: return []
    case .array(let values): return values
    default: throw refusal(place, "an array was expected")
    }
  }

  func text(_ value: JSONValue?, _ place: String) throws(EngineError) -> String? {
    switch value {
    case nil, .null: return nil
    case .string(let text): return text
    default: throw refusal(place, "a string was expected")
    }
  }

  func texts(_ value: JSONValue?, _ place: String) throws(EngineError) -> [String] {
    var result: [String] = []
    for (index, value) in try array(value, place).enumerated() {
      guard let text = try text(value, "\(place)[\(index)]") else {
        throw refusal("\(place)[\(index)]", "a string was expected")
      }
      result.append(text)
    }
    return result
  }

  func number(_ value: JSONValue?, _ place: String) throws(EngineError) -> UInt64? {
    switch value {
    case nil, .null: return nil
    case .integer(let number) where number >= 0: return UInt64(number)
    case .unsigned(let number): return number
    default: throw refusal(place, "a whole number that is not negative was expected")
    }
  }

  /// - Parameter number: what an ERRNO or TRACE action returns; EPERM where nothing is said.
  func action(
    _ value: JSONValue?, _ place: String, number: JSONValue?, _ numberPlace: String
  ) throws(EngineError) -> UInt32 {
    guard let name = try text(value, place), !name.isEmpty else { throw refusal(place, "an action is missing") }
    let given = try self.number(number, numberPlace)
    guard given ?? 0 <= 0xffff else { throw refusal(numberPlace, "an error number was expected") }
    let data = UInt32(given ?? 1)
    switch name {
    case "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD": return 0
    case "SCMP_ACT_KILL_PROCESS": return 0x8000_0000
    case "SCMP_ACT_TRAP": return 0x0003_0000
    case "SCMP_ACT_ERRNO": return 0x0005_0000 | data
    case "SCMP_ACT_TRACE": return 0x7ff0_0000 | data
    case "SCMP_ACT_LOG": return 0x7ffc_0000
    case "SCMP_ACT_ALLOW": return 0x7fff_0000
    case "SCMP_ACT_NOTIFY": throw refusal(place, "SCMP_ACT_NOTIFY needs a listener, which this engine has not")
    default: throw refusal(place, "\"\(name)\" is not an action")
    }
  }

  func architectures(_ root: JSONValue) throws(EngineError) -> [String] {
    let plain = try texts(root["architectures"], "architectures")
    let map = try array(root["archMap"], "archMap")
    if !plain.isEmpty && !map.isEmpty {
      throw SeccompProfile.refusal(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or "
          + "'archMap'")
    }
    var names: [(String, String)] = plain.enumerated().map { ($0.element, "architectures[\($0.offset)]") }
    let native = machine.architecture == "amd64" ? "SCMP_ARCH_X86_64" : "SCMP_ARCH_AARCH64"
    for (index, entry) in map.enumerated() {
      let place = "archMap[\(index)]"
      guard try text(entry["architecture"], "\(place).architecture") == native else { continue }
      names.append((native, "\(place).architecture"))
      for (sub, name) in try texts(entry["subArchitectures"], "\(place).subArchitectures").enumerated() {
        names.append((name, "\(place).subArchitectures[\(sub)]"))
      }
    }
    var result: [String] = []
    for (name, place) in names {
      guard name.hasPrefix("SCMP_ARCH_") else { throw refusal(place, "\"\(name)\" is not an architecture") }
      result.append(name.dropFirst(10).lowercased())
    }
    return result
  }

  /// - Returns: nil for a rule that is not for this machine or these capabilities.
  func rule(_ call: JSONValue, _ place: String) throws(EngineError) -> SeccompProfile.Rule? {
    guard case .object = call else { throw refusal(place, "an object was expected") }
    var names = try texts(call["names"], "\(place).names")
    if let name = try text(call["name"], "\(place).name"), !name.isEmpty {
      guard names.isEmpty else {
        throw refusal(
          place, "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'")
      }
      names = [name]
    }
    let action = try action(call["action"], "\(place).action", number: call["errnoRet"], "\(place).errnoRet")
    var comparisons: [SeccompProfile.Comparison] = []
    for (index, value) in try array(call["args"], "\(place).args").enumerated() {
      comparisons.append(try comparison(value, "\(place).args[\(index)]"))
    }
    let excluded = try matches(call["excludes"], "\(place).excludes", any: true)
    let included = try matches(call["includes"], "\(place).includes", any: false)
    if excluded == true || included == false { return nil }
    return SeccompProfile.Rule(names: names, action: action, comparisons: comparisons)
  }

  private func comparison(_ value: JSONValue, _ place: String) throws(EngineError) -> SeccompProfile.Comparison {
    guard let index = try number(value["index"], "\(place).index"), index < 6 else {
      throw refusal("\(place).index", "a number from 0 to 5 was expected")
    }
    let name = try text(value["op"], "\(place).op") ?? ""
    guard let operation = SeccompProfile.Operation(rawValue: name) else {
      throw refusal("\(place).op", "\"\(name)\" is not a comparison")
    }
    return SeccompProfile.Comparison(
      index: UInt32(index), operation: operation, value: try number(value["value"], "\(place).value") ?? 0,
      second: try number(value["valueTwo"], "\(place).valueTwo") ?? 0)
  }

  /// Whether a filter fits: any of its conditions for `excludes`, all of them for `includes`; nil where it has none.
  private func matches(_ filter: JSONValue?, _ place: String, any: Bool) throws(EngineError) -> Bool? {
    guard let filter, filter != .null else { return nil }
    guard case .object = filter else { throw refusal(place, "an object was expected") }
    var conditions: [Bool] = []
    let architectures = try texts(filter["arches"], "\(place).arches")
    if !architectures.isEmpty { conditions.append(architectures.contains(machine.architecture)) }
    for (index, name) in try texts(filter["caps"], "\(place).caps").enumerated() {
      do throws(EngineError) {
        conditions.append(machine.capabilities & (try KernelNames.capabilityMask([name])) != 0)
      } catch {
        throw refusal("\(place).caps[\(index)]", "\"\(name)\" is not a capability")
      }
    }
    if let version = try text(filter["minKernel"], "\(place).minKernel"), !version.isEmpty {
      let parts = version.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
      guard parts.count == 2, let major = parts[0], let minor = parts[1] else {
        throw refusal("\(place).minKernel", "\"\(version)\" is not a kernel's version such as 4.8")
      }
      conditions.append(!machine.kernel.lexicographicallyPrecedes([major, minor]))
    }
    if conditions.isEmpty { return nil }
    return any ? conditions.contains(true) : !conditions.contains(false)
  }
}
