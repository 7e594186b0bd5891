import Contracts
import Testing
import Wire

@Suite("JSON")
struct JSONTests {
  struct Inner: Codable, Equatable {
    var flag = true
    var list: [Int] = [1, 2]
    var maybe: String?
  }
  enum Choice: Codable, Equatable {
    case nothing
    case one(Int)
    case named(first: String, second: [Inner])
  }
  struct Outer: Codable, Equatable {
    var text = "tab\t quote\" slash\\ snowman ☃ 𝄞 nul\u{0}"
    var numbers: [String: Double] = ["pi": 3.25]
    var large = UInt64.max
    var small = Int64.min
    var inner = Inner()
    var inners: [Inner] = [Inner(flag: false, list: [], maybe: "x"), Inner()]
    var choices: [Choice] = [.nothing, .one(7), .named(first: "a", second: [Inner()])]
    var identifiers: [ObjectID: Int] = [:]
    var empty = Done()
    var optional: Inner?
  }

  @Test func bringsEveryShapeBack() throws {
    var value = Outer()
    value.identifiers[ObjectID.random()] = 4
    #expect(try JSON.decode(Outer.self, try JSON.encode(value)) == value)
    #expect(try JSON.decode(Outer.self, try JSON.encode(value, pretty: true)) == value)
  }

  /// Members come in any order, also in objects so large that they are looked up, and with others between them.
  @Test func readsMembersInAnyOrder() throws {
    let text = String(decoding: try JSON.encode(Outer()), as: UTF8.self)
    guard case .object(let members) = try JSON.parse(Array(text.utf8)) else {
      Issue.record("no object")
      return
    }
    let strangers = (0..<30).map { JSONValue.Member("stranger\($0)", .integer(Int64($0))) }
    let orders = [members, Array(members.reversed()), strangers + members, Array((members + strangers).reversed())]
    for order in orders { #expect(try JSON.decode(Outer.self, from: .object(order)) == Outer()) }
  }

  @Test(arguments: [
    (#"{"inner":{"flag":true,"list":[1,"x"]}}"#, "inner.list.1: a whole number was expected, not a string"),
    (#"{"inner":{"flag":3,"list":[]}}"#, "inner.flag: a boolean was expected, not a number"),
    (#"{"inner":{"list":[]}}"#, "inner.flag is missing"), (#"{"inner":[]}"#, "inner: an object was expected"),
    (#"{}"#, "inner is missing"),
  ])
  func errorsNameThePlace(text: String, expected: String) {
    struct Wrapper: Codable { var inner: Inner }
    let error = #expect(throws: EngineError.self) { try JSON.decode(Wrapper.self, Array(text.utf8)) }
    #expect(error?.message.contains(expected) == true, "\(error?.message ?? "")")
  }

  @Test func writesDictionariesByIdentifierAsObjects() throws {
    let id = try #require(ObjectID(String(repeating: "ab", count: 32)))
    #expect(String(decoding: try JSON.encode([id: 1]), as: UTF8.self) == "{\"\(id)\":1}")
  }

  @Test func prettyTextIsIndentedByFour() throws {
    let value = try JSON.parse(Array(#"{"a":[1,{"b":null}],"c":{},"d":[]}"#.utf8))
    #expect(
      try JSON.write(value, pretty: true) == """
        {
            "a": [
                1,
                {
                    "b": null
                }
            ],
            "c": {},
            "d": []
        }
        """)
  }

  @Test(arguments: [
    ("0", JSONValue.integer(0)), ("-5", .integer(-5)), ("18446744073709551615", .unsigned(.max)),
    ("1e3", .number(1000)),
    ("-0.5", .number(-0.5)), ("\"\\u0041\\ud834\\udd1e\"", .string("A𝄞")), ("\"\\ud834x\"", .string("\u{FFFD}x")),
    (" [ ] ", .array([])), ("true", .boolean(true)),
  ])
  func parses(text: String, value: JSONValue) throws {
    #expect(try JSON.parse(Array(text.utf8)) == value)
  }

  @Test(arguments: [
    "", " ", "{", "[1,]", "{\"a\":}", "{\"a\" 1}", "{a:1}", "01", "1.", "-", "1e", "tru", "\"", "\"\\x\"", "\"\\u12\"",
    "\"\u{1}\"", "[1] 2", "nul", "1e999", "]", String(repeating: "[", count: 200),
  ])
  func refuses(text: String) {
    #expect(throws: EngineError.self) { try JSON.parse(Array(text.utf8)) }
  }

  @Test func saysWhatDoesNotFit() {
    do {
      _ = try JSON.decode(Outer.self, Array(#"{"text":"a","numbers":{"x":"y"}}"#.utf8))
      Issue.record("expected an error")
    } catch {
      #expect(error.message.contains("numbers.x"), "\(error)")
    }
    do {
      _ = try JSON.decode(Inner.self, Array(#"{"flag":true}"#.utf8))
      Issue.record("expected an error")
    } catch {
      #expect(error.message.contains("list is missing"), "\(error)")
    }
  }

  @Test func anyDamageIsAnErrorAndNeverACrash() throws {
    var generator = SystemRandomNumberGenerator()
    let valid = try JSON.encode(Outer())
    for _ in 0..<3000 {
      var bytes = valid
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[index] = UInt8.random(in: 0...255, using: &generator)
      }
      if let value = try? JSON.parse(bytes) {
        // What parses can be written, and read again as the same; a number may be written shorter (1e2 as 100).
        let written = try JSON.encode(value)
        #expect(try JSON.encode(try JSON.parse(written)) == written)
        _ = try? JSON.decode(Outer.self, from: value)
      }
    }
  }
}
