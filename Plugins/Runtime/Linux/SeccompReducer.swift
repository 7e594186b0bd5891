/// Makes a seccomp filter shorter and quicker to load without changing what it decides.
///
/// libseccomp compares every number that it knows, one leaf each, in a tree. Loading such a filter takes the kernel as
/// long as starting a process: it compiles every instruction, and runs the filter for every number there is to see what
/// needs no filter (seccomp(2), `SECCOMP_SET_MODE_FILTER`). Most numbers lie in long runs that are decided alike, so here each
/// architecture gets a search over those runs. What looks at arguments is taken over as it is.
struct SeccompReducer {
  /// `struct sock_filter` (linux/filter.h).
  struct Instruction: Hashable {
    var code: UInt16
    var whenTrue: UInt8 = 0
    var whenFalse: UInt8 = 0
    var operand: UInt32

    static func load(_ offset: UInt32) -> Instruction { Instruction(code: Code.load, operand: offset) }
    static func answer(_ value: UInt32) -> Instruction { Instruction(code: Code.answer, operand: value) }
    static func jump(_ distance: Int) -> Instruction { Instruction(code: Code.jump, operand: UInt32(distance)) }
  }

  /// The operations of classic BPF that libseccomp writes (linux/bpf_common.h).
  enum Code {
    static let load: UInt16 = 0x20
    static let jump: UInt16 = 0x05
    static let equal: UInt16 = 0x15
    static let greater: UInt16 = 0x25
    static let greaterOrEqual: UInt16 = 0x35
    static let anyBit: UInt16 = 0x45
    static let and: UInt16 = 0x54
    static let answer: UInt16 = 0x06
  }

  /// Offsets in `struct seccomp_data` (linux/seccomp.h).
  private static let numberOffset: UInt32 = 0
  private static let architectureOffset: UInt32 = 4

  /// What is decided once architecture and number are known.
  private enum Leaf: Hashable {
    case answer(UInt32)
    /// Looks further, from this instruction on, which loads something.
    case further(Int)
  }

  /// What the accumulator holds.
  private enum Held: Hashable {
    case nothing
    case number
    case architecture
  }

  /// A filter that this reducer does not understand.
  private struct Unknown: Error {}

  private let program: [Instruction]

  /// - Parameter bytes: a filter's `struct sock_filter`s.
  /// - Returns: a filter that answers the same to every system call; the same one where none shorter is found.
  static func reduce(_ bytes: [UInt8]) -> [UInt8] {
    let program = instructions(bytes)
    guard let reduced = try? SeccompReducer(program: program).reduced(), reduced.count < program.count else {
      return bytes
    }
    return Self.bytes(reduced)
  }

  static func instructions(_ bytes: [UInt8]) -> [Instruction] {
    stride(from: 0, to: bytes.count - bytes.count % 8, by: 8).map { at in
      bytes.withUnsafeBytes { raw in
        Instruction(
          code: raw.loadUnaligned(fromByteOffset: at, as: UInt16.self), whenTrue: raw[at + 2], whenFalse: raw[at + 3],
          operand: raw.loadUnaligned(fromByteOffset: at + 4, as: UInt32.self))
      }
    }
  }

  static func bytes(_ program: [Instruction]) -> [UInt8] {
    program.flatMap { instruction -> [UInt8] in
      withUnsafeBytes(of: instruction.code) { Array($0) } + [instruction.whenTrue, instruction.whenFalse]
        + withUnsafeBytes(of: instruction.operand) { Array($0) }
    }
  }

  // MARK: Understanding

  /// The constants that number and architecture are compared with; each is where the decision may change.
  private func constants() throws(Unknown) -> (numbers: Set<UInt32>, architectures: Set<UInt32>) {
    struct Point: Hashable {
      var at: Int
      var held: Held
    }
    var seen: Set<Point> = []
    var open = [Point(at: 0, held: .nothing)]
    var numbers: Set<UInt32> = [0]
    var architectures: Set<UInt32> = []
    while let point = open.popLast() {
      guard program.indices.contains(point.at) else { throw Unknown() }
      guard seen.insert(point).inserted else { continue }
      let instruction = program[point.at]
      var next: [Int]
      var held = point.held
      switch instruction.code {
      case Code.load:
        switch instruction.operand {
        case Self.numberOffset: held = .number
        case Self.architectureOffset: held = .architecture
        default: continue
        }
        next = [point.at + 1]
      case Code.jump: next = [point.at + 1 + Int(instruction.operand)]
      case Code.equal, Code.greater, Code.greaterOrEqual:
        next = [point.at + 1 + Int(instruction.whenTrue), point.at + 1 + Int(instruction.whenFalse)]
        let value = instruction.operand
        switch held {
        case .nothing: throw Unknown()
        case .architecture:
          // An order of architectures would be no language of libseccomp's.
          guard instruction.code == Code.equal else { throw Unknown() }
          architectures.insert(value)
        case .number:
          if instruction.code != Code.greater { numbers.insert(value) }
          if instruction.code != Code.greaterOrEqual, value < .max { numbers.insert(value + 1) }
        }
      case Code.answer: continue
      default: throw Unknown()
      }
      open += next.map { Point(at: $0, held: held) }
    }
    return (numbers, architectures)
  }

  /// Where the filter gets with one number on one architecture.
  private func leaf(_ number: UInt32, _ architecture: UInt32) throws(Unknown) -> Leaf {
    var at = 0
    var held: UInt32 = 0
    // Jumps only lead forward, so this ends.
    while at < program.count {
      let instruction = program[at]
      switch instruction.code {
      case Code.load:
        switch instruction.operand {
        case Self.numberOffset: held = number
        case Self.architectureOffset: held = architecture
        default: return .further(at)
        }
        at += 1
      case Code.jump: at += 1 + Int(instruction.operand)
      case Code.equal: at += 1 + Int(held == instruction.operand ? instruction.whenTrue : instruction.whenFalse)
      case Code.greater: at += 1 + Int(held > instruction.operand ? instruction.whenTrue : instruction.whenFalse)
      case Code.greaterOrEqual:
        at += 1 + Int(held >= instruction.operand ? instruction.whenTrue : instruction.whenFalse)
      case Code.answer: return .answer(instruction.operand)
      default: throw Unknown()
      }
    }
    throw Unknown()
  }

  /// Runs of numbers that are decided alike, each by its first, in order.
  private func runs(_ starts: [UInt32], _ architecture: UInt32) throws(Unknown) -> [(start: UInt32, leaf: Leaf)] {
    var runs: [(start: UInt32, leaf: Leaf)] = []
    for start in starts {
      let leaf = try leaf(start, architecture)
      if runs.last?.leaf != leaf { runs.append((start, leaf)) }
    }
    return runs
  }

  // MARK: Writing

  private func reduced() throws(Unknown) -> [Instruction] {
    let (numbers, architectures) = try constants()
    let starts = numbers.sorted()
    // One that no comparison names stands for all others.
    let named = architectures.sorted()
    guard let other = (0...UInt32(named.count)).first(where: { !architectures.contains($0) }) else { throw Unknown() }
    var further: Set<Int> = []
    var searches: [[(start: UInt32, leaf: Leaf)]] = []
    for architecture in named + [other] {
      let runs = try runs(starts, architecture)
      for case .further(let at) in runs.map(\.leaf) { further.insert(at) }
      searches.append(runs)
    }
    let kept = try reachable(from: further)

    // Which instruction a jump to what is taken over leads to is known when everything before it is written.
    var result = [Instruction.load(Self.architectureOffset)]
    var jumps: [(at: Int, target: Int)] = []
    for (architecture, runs) in zip(named, searches) {
      var search: [Instruction] = []
      var inner: [(at: Int, target: Int)] = []
      try write(runs, &search, &inner)
      // Past the search of this one, where it is another.
      result.append(Instruction(code: Code.equal, whenTrue: 1, whenFalse: 0, operand: architecture))
      result.append(.jump(search.count))
      jumps += inner.map { (result.count + $0.at, $0.target) }
      result += search
    }
    var rest: [Instruction] = []
    var inner: [(at: Int, target: Int)] = []
    try write(searches[named.count], &rest, &inner)
    jumps += inner.map { (result.count + $0.at, $0.target) }
    result += rest

    var places: [Int: Int] = [:]
    for (index, at) in kept.enumerated() { places[at] = result.count + index }
    for (at, target) in jumps {
      guard let place = places[target] else { throw Unknown() }
      result[at] = .jump(place - at - 1)
    }
    for at in kept {
      var instruction = program[at]
      let here = result.count
      func distance(_ target: Int) throws(Unknown) -> Int {
        guard let place = places[target], place > here else { throw Unknown() }
        return place - here - 1
      }
      switch instruction.code {
      case Code.jump: instruction.operand = UInt32(try distance(at + 1 + Int(instruction.operand)))
      case Code.equal, Code.greater, Code.greaterOrEqual, Code.anyBit:
        // Never further than before: what lies between was at most left out.
        instruction.whenTrue = UInt8(try distance(at + 1 + Int(instruction.whenTrue)))
        instruction.whenFalse = UInt8(try distance(at + 1 + Int(instruction.whenFalse)))
      default: break
      }
      result.append(instruction)
    }
    return result
  }

  /// The search for the run in which a number lies: halves, each with what is less in front.
  private func write(
    _ runs: [(start: UInt32, leaf: Leaf)], _ result: inout [Instruction], _ jumps: inout [(at: Int, target: Int)]
  ) throws(Unknown) {
    guard !runs.isEmpty else { throw Unknown() }
    if runs.count > 1 { result.append(.load(Self.numberOffset)) }
    write(runs[...], &result, &jumps)
  }

  private func write(
    _ runs: ArraySlice<(start: UInt32, leaf: Leaf)>, _ result: inout [Instruction],
    _ jumps: inout [(at: Int, target: Int)]
  ) {
    if runs.count <= Self.block {
      writeBlock(runs, &result, &jumps)
      return
    }
    let middle = runs.startIndex + runs.count / 2
    var less: [Instruction] = []
    var inner: [(at: Int, target: Int)] = []
    write(runs[..<middle], &less, &inner)
    let boundary = runs[middle].start
    if less.count <= Int(UInt8.max) {
      result.append(
        Instruction(
          code: Code.greaterOrEqual, whenTrue: UInt8(less.count), whenFalse: 0, operand: boundary))
    } else {
      result.append(Instruction(code: Code.greaterOrEqual, whenTrue: 0, whenFalse: 1, operand: boundary))
      result.append(.jump(less.count))
    }
    jumps += inner.map { (result.count + $0.at, $0.target) }
    result += less
    write(runs[middle...], &result, &jumps)
  }

  /// So many runs that every jump within them fits into the eight bits it has.
  private static let block = 100

  /// A search whose ends are shared: an instruction for each bound between two runs, and one for each answer.
  private func writeBlock(
    _ runs: ArraySlice<(start: UInt32, leaf: Leaf)>, _ result: inout [Instruction],
    _ jumps: inout [(at: Int, target: Int)]
  ) {
    enum Target {
      case bound(Int)
      case leaf(Leaf)
    }
    var bounds: [(value: UInt32, less: Target, rest: Target)] = []
    func place(_ runs: ArraySlice<(start: UInt32, leaf: Leaf)>) -> Target {
      if runs.count == 1 { return .leaf(runs[runs.startIndex].leaf) }
      let middle = runs.startIndex + runs.count / 2
      let own = bounds.count
      bounds.append((runs[middle].start, .bound(own), .bound(own)))
      bounds[own].less = place(runs[..<middle])
      bounds[own].rest = place(runs[middle...])
      return .bound(own)
    }
    _ = place(runs)
    var leaves: [Leaf] = []
    for run in runs where !leaves.contains(run.leaf) { leaves.append(run.leaf) }
    func distance(_ target: Target, from own: Int) -> UInt8 {
      switch target {
      case .bound(let index): UInt8(index - own - 1)
      case .leaf(let leaf): UInt8(bounds.count + (leaves.firstIndex(of: leaf) ?? 0) - own - 1)
      }
    }
    for (own, bound) in bounds.enumerated() {
      result.append(
        Instruction(
          code: Code.greaterOrEqual, whenTrue: distance(bound.rest, from: own),
          whenFalse: distance(bound.less, from: own), operand: bound.value))
    }
    for leaf in leaves {
      switch leaf {
      case .answer(let value): result.append(.answer(value))
      case .further(let target):
        jumps.append((result.count, target))
        result.append(.jump(0))
      }
    }
  }

  /// The instructions that are reached from these, in order.
  private func reachable(from starts: Set<Int>) throws(Unknown) -> [Int] {
    var seen: Set<Int> = []
    var open = Array(starts)
    while let at = open.popLast() {
      guard program.indices.contains(at) else { throw Unknown() }
      guard seen.insert(at).inserted else { continue }
      let instruction = program[at]
      switch instruction.code {
      case Code.load, Code.and: open.append(at + 1)
      case Code.jump: open.append(at + 1 + Int(instruction.operand))
      case Code.equal, Code.greater, Code.greaterOrEqual, Code.anyBit:
        open += [at + 1 + Int(instruction.whenTrue), at + 1 + Int(instruction.whenFalse)]
      case Code.answer: break
      default: throw Unknown()
      }
    }
    return seen.sorted()
  }
}
