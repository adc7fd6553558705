#include "json.h"

#include <charconv>
#include <cmath>
#include <system_error>

#include "error.h"
#include "utf8.h"

namespace cn2::json {
namespace {

constexpr int kDeepest = 64;  // values inside values

bool is_digit(char letter) {
  return letter >= '0' && letter <= '9';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value whole() {
    Value value = parse_value(0);
    skip_space();
    if (position_ != text_.size()) {
      fail("the end");
    }
    return value;
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    throw ParseError(cn2::text("expected ", expected, " at byte ", position_));
  }

  char peek() const { return position_ < text_.size() ? text_[position_] : '\0'; }

  bool take(char letter) {
    if (position_ == text_.size() || text_[position_] != letter) {
      return false;
    }
    ++position_;
    return true;
  }

  bool take(std::string_view word) {
    if (text_.substr(position_, word.size()) != word) {
      return false;
    }
    position_ += word.size();
    return true;
  }

  void skip_space() {
    while (position_ < text_.size() &&
           std::string_view(" \t\r\n").find(text_[position_]) != std::string_view::npos) {
      ++position_;
    }
  }

  Value parse_value(int depth) {
    if (depth > kDeepest) {
      fail("at most 64 values inside one another");
    }
    skip_space();
    const size_t begin = position_;
    Value value = parse_kind(depth);
    value.written = text_.substr(begin, position_ - begin);
    return value;
  }

  Value parse_kind(int depth) {
    if (take('{')) {
      return {parse_object(depth)};
    }
    if (take('[')) {
      return {parse_array(depth)};
    }
    if (take('"')) {
      return {parse_string()};
    }
    if (take("null")) {
      return {nullptr};
    }
    if (take("true")) {
      return {true};
    }
    if (take("false")) {
      return {false};
    }
    return parse_number();
  }

  Object parse_object(int depth) {
    Object object;
    skip_space();
    if (take('}')) {
      return object;
    }
    do {
      skip_space();
      if (!take('"')) {
        fail("a key");
      }
      std::string key = parse_string();
      skip_space();
      if (!take(':')) {
        fail("a colon");
      }
      if (!object.emplace(std::move(key), parse_value(depth + 1)).second) {
        fail("a key only once, before this");
      }
      skip_space();
    } while (take(','));
    if (!take('}')) {
      fail("a comma or }");
    }
    return object;
  }

  Array parse_array(int depth) {
    Array array;
    skip_space();
    if (take(']')) {
      return array;
    }
    do {
      array.push_back(parse_value(depth + 1));
      skip_space();
    } while (take(','));
    if (!take(']')) {
      fail("a comma or ]");
    }
    return array;
  }

  std::string parse_string() {
    std::string result;
    while (!take('"')) {
      if (take('\\')) {
        parse_escape(result);
        continue;
      }
      const size_t length = utf8_length(text_.substr(position_));
      if (length == 0 || static_cast<unsigned char>(text_[position_]) < 0x20) {
        fail("a character of a text");
      }
      result += text_.substr(position_, length);
      position_ += length;
    }
    return result;
  }

  void parse_escape(std::string& result) {
    static constexpr std::string_view letters = "\"\\/bfnrt";
    static constexpr std::string_view meanings = "\"\\/\b\f\n\r\t";
    if (take('u')) {
      append_utf8(result, parse_code_point());
      return;
    }
    const size_t which =
        position_ < text_.size() ? letters.find(text_[position_]) : std::string_view::npos;
    if (which == std::string_view::npos) {
      fail("an escaped character");
    }
    result += meanings[which];
    ++position_;
  }

  uint32_t parse_code_point() {
    const uint32_t high = parse_hex();
    if (high == 0) {
      fail("no zero character before this");
    }
    if (high < 0xD800 || high > 0xDFFF) {
      return high;
    }
    if (high > 0xDBFF || !take("\\u")) {
      fail("both halves of a surrogate pair");
    }
    const uint32_t low = parse_hex();
    if (low < 0xDC00 || low > 0xDFFF) {
      fail("both halves of a surrogate pair");
    }
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  uint32_t parse_hex() {
    const char* begin = text_.data() + position_;
    uint32_t value = 0;
    if (text_.size() - position_ < 4 ||
        std::from_chars(begin, begin + 4, value, 16).ptr != begin + 4) {
      fail("four hexadecimal digits");
    }
    position_ += 4;
    return value;
  }

  void take_digits() {
    if (!is_digit(peek())) {
      fail("a value");
    }
    while (is_digit(peek())) {
      ++position_;
    }
  }

  Value parse_number() {
    const size_t begin = position_;
    take('-');
    if (!take('0')) {
      take_digits();
    }
    bool whole = true;
    if (take('.')) {
      whole = false;
      take_digits();
    }
    if (take('e') || take('E')) {
      whole = false;
      if (!take('+')) {
        take('-');
      }
      take_digits();
    }
    return convert(text_.substr(begin, position_ - begin), whole);
  }

  Value convert(std::string_view digits, bool whole) const {
    const char* end = digits.data() + digits.size();
    int64_t integer = 0;
    if (whole && std::from_chars(digits.data(), end, integer).ec == std::errc()) {
      return {integer};
    }
    double number = 0;
    if (std::from_chars(digits.data(), end, number).ec != std::errc()) {
      fail("a number in a double's range before this");
    }
    return {number};
  }

  std::string_view text_;
  size_t position_ = 0;
};

constexpr size_t kShown = 80;  // bytes of a text that a message quotes

}  // namespace

Value parse(std::string_view text) {
  return Parser(text).whole();
}

std::string describe(const Value& value) {
  struct Describe {
    std::string operator()(std::nullptr_t) const { return "null"; }
    std::string operator()(bool truth) const { return truth ? "true" : "false"; }
    std::string operator()(int64_t number) const { return text(number); }
    std::string operator()(double number) const { return text(number); }
    std::string operator()(const std::string& letters) const {
      size_t end = 0;
      while (end < letters.size() && end < kShown) {
        end += utf8_length(std::string_view(letters).substr(end));
      }
      return text('"', letters.substr(0, end), end < letters.size() ? "…" : "", '"');
    }
    std::string operator()(const Array& array) const { return text("a list of ", array.size()); }
    std::string operator()(const Object& object) const {
      return text("an object of ", object.size());
    }
  };
  return std::visit(Describe{}, value.held);
}

}  // namespace cn2::json
