import Contracts

/// Names of containers: which are allowed, and new ones in the form `adjective_surname`.
enum Names {
  /// - Throws: `invalidArgument` in Docker's words.
  static func validate(_ name: String) throws(EngineError) -> String {
    let bare = name.hasPrefix("/") ? String(name.dropFirst()) : name
    let bytes = Array(bare.utf8)
    func isAlphanumeric(_ byte: UInt8) -> Bool {
      (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
    }
    guard bytes.count >= 2, isAlphanumeric(bytes[0]),
      bytes.dropFirst().allSatisfy({ isAlphanumeric($0) || $0 == 95 || $0 == 46 || $0 == 45 })
    else {
      throw EngineError(
        .invalidArgument, "Invalid container name (\(name)), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    }
    return bare
  }

  /// A name that nobody has; after a few tries a number makes it unique.
  static func invent(isFree: (String) -> Bool) -> String {
    for _ in 0..<6 {
      let name = random()
      if isFree(name) { return name }
    }
    while true {
      let name = "\(random())\(Int.random(in: 0..<1_000_000))"
      if isFree(name) { return name }
    }
  }

  private static func random() -> String {
    let adjective = adjectives[Int.random(in: 0..<adjectives.count)]
    return "\(adjective)_\(surnames[Int.random(in: 0..<surnames.count)])"
  }

  static let adjectives = """
    able agile airy alert amber ample apt artful astute autumn balmy blithe bold brave breezy bright brisk calm candid \
    canny careful cheery civil clear clever coastal cosy crisp curious dapper daring deft devoted diligent dreamy eager \
    earnest easy elated fair fearless fervent fleet fluent fond frank free fresh frosty gallant gentle genial gifted \
    glad golden graceful grand handy happy hardy hearty honest humble ideal jaunty jolly jovial keen kind lively loyal \
    lucid lucky mellow merry mindful modest neat nimble noble patient placid plucky poised polite proud prudent quick \
    quiet rapid ready robust rosy sage serene sharp silent sincere sleek smart snug sober solid spry stable steady \
    sturdy sunny swift tender tidy tranquil trusty upbeat valiant vivid warm wise witty zesty
    """.split(separator: " ").map(String.init)

  static let surnames = """
    abel agnesi ampere archimedes aryabhata babbage banneker bardeen barton bell bernoulli bhabha bohr boole born bose \
    boyle brahe bragg brattain burnell cannon cantor carson cauchy cerf chandrasekhar chebyshev clarke cori coulomb \
    crick curie dalton darwin davy descartes dijkstra dirac edison ehrlich einstein elion engelbart erdos euclid euler \
    faraday fermat fermi feynman fibonacci fleming fourier franklin galileo galois gauss germain goedel goldberg \
    goodall haber halley hamilton hawking heisenberg henry hermann herschel hertz hilbert hodgkin hooke hopper hubble \
    huygens hypatia joliot jones joule kapitza kepler khorana kilby knuth kovalevskaya lagrange lamarr landau laplace \
    lavoisier leavitt leibniz linnaeus lovelace lumiere maxwell mayer mcclintock meitner mendel mendeleev mirzakhani \
    moore morse napier nash newton nightingale nobel noether ohm pascal pasteur pauli payne perlman planck poincare \
    ptolemy raman ramanujan riemann ritchie roentgen rubin rutherford sagan salk shannon sinoussi somerville tesla \
    thompson torvalds turing volta watt wiles wozniak wu yalow
    """.split(separator: " ").map(String.init)
}
