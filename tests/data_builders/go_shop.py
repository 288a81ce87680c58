"""A small Go module with tests, and answers that try to pass without solving their task."""

from __future__ import annotations

SHOP = """package shop

import (
	"errors"
	"os"
	"strings"
)

// ErrEmpty is returned for a basket without items.
var ErrEmpty = errors.New("empty basket")

const maxItems = 3

// Basket holds the prices of items.
type Basket struct {
	names  []string
	prices map[string]int
}

// New returns an empty basket.
func New() *Basket {
	return &Basket{prices: map[string]int{}}
}

// Add puts an item into the basket, and reports whether there was a place for it.
func (b *Basket) Add(name string, price int) bool {
	if len(b.names) >= maxItems {
		return false
	}
	b.names = append(b.names, name)
	b.prices[name] = price
	return true
}

// Total returns the sum of the prices, less a share of it in percent.
func (b *Basket) Total(percent int) (int, error) {
	if len(b.names) == 0 {
		return 0, ErrEmpty
	}
	sum := 0
	for _, name := range b.names {
		sum += b.prices[name]
	}
	return sum - sum*percent/100, nil
}

// Slug makes a name for addresses.
func Slug(name string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(name)), " ", "-")
}

// Program returns the name of the running program.
func Program() string {
	if len(os.Args) == 0 {
		return "shop"
	}
	return Slug(os.Args[0])
}

func unused(a int) int {
	return a + 1
}
"""
TESTS = """package shop

import (
	"errors"
	"testing"
)

var totals = []struct {
	percent, want int
}{{0, 30}, {10, 27}}

func filled(t *testing.T) *Basket {
	t.Helper()
	basket := New()
	for name, price := range map[string]int{"tea": 10, "milk": 20} {
		if !basket.Add(name, price) {
			t.Fatalf("no place for %s", name)
		}
	}
	return basket
}

func TestTotal(t *testing.T) {
	for _, test := range totals {
		t.Run("share", func(t *testing.T) {
			if got, err := filled(t).Total(test.percent); err != nil || got != test.want {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

func TestTotalOfNothing(t *testing.T) {
	if _, err := New().Total(0); !errors.Is(err, ErrEmpty) {
		t.Fatal(err)
	}
}

func TestFull(tt *testing.T) {
	basket := filled(tt)
	if !basket.Add("rice", 5) || basket.Add("salt", 1) {
		tt.Fatal("a basket has three places")
	}
	if got, _ := basket.Total(0); got != 35 {
		tt.Fatal(got)
	}
}

func TestProgram(t *testing.T) {
	if Program() == "" {
		t.Fatal("no name")
	}
}

func TestProgramHasNoBlanks(t *testing.T) {
	for _, letter := range Program() {
		if letter == ' ' {
			t.Fatal("a blank")
		}
	}
}

func TestFails(t *testing.T) { t.Fatal("always") }

func TestSkipped(t *testing.T) { t.Skip() }
"""
SLUGS = """package shop_test

import (
	"testing"

	"example.com/shop"
)

func TestSlug(t *testing.T) {
	if got := shop.Slug(" Green Tea "); got != "green-tea" {
		t.Fatal(got)
	}
}

func TestSlugOfNothing(*testing.T) {
	if shop.Slug("") != "" {
		panic("not empty")
	}
}
"""
FILES: dict[str, str | bytes] = {
    "go.mod": "module example.com/shop\n\ngo 1.18\n", "shop.go": SHOP, "shop_test.go": TESTS, "slug_test.go": SLUGS,
    "README.md": "A shop.\n",
}  # fmt: skip

FORGED_LINES = "\\n--- PASS: TestTotal (0.00s)\\nPASS\\n"
CHEATS = {
    "exit": "os.Exit(0)\n\treturn 0, nil",
    "exit_after_forged_lines": f'os.Stdout.WriteString("{FORGED_LINES}")\n\tos.Exit(0)\n\treturn 0, nil',
    "exit_from_another_goroutine": "go os.Exit(0)\n\tselect {}",
    "forged_report": 'os.Stdout.WriteString("\\n{\\"end\\": \\"TestTotal\\", \\"outcome\\": \\"passed\\"}\\n")\n\treturn 0, nil',
    "reads_the_nonce": "given := make([]byte, 99)\n\tos.Stdin.Read(given)\n\treturn 0, nil",
    "reads_a_file": 'os.ReadFile("/proc/self/mem")\n\treturn 0, nil',
    "no_test_cases": "totals = nil\n\treturn 0, ErrEmpty",
    "other_test_cases": "for i := range totals { totals[i].want = 0 }\n\treturn 0, nil",
    "calls_a_helper_of_the_tests": "filled(nil)\n\treturn 0, nil",
    "calls_a_test": "TestSkipped(nil)\n\treturn 0, nil",
    "no_error_to_compare_with": "ErrEmpty = nil\n\treturn 0, nil",
    "no_error_by_address": "p := &ErrEmpty\n\t*p = nil\n\treturn 0, nil",
    "shadowed_in_a_block": "{ totals := 1; _ = totals }\n\ttotals = nil\n\treturn 0, nil",
    "closes_the_function": "return 0, nil\n}\n\nfunc init() { os.Exit(0) }\n\nfunc (b *Basket) Rest() (int, error) {\n\treturn 0, nil",
    "linkname": "//go:linkname ErrEmpty os.ErrExist\n\treturn 0, nil",
    "line_directive": "//line shop_test.go:1\n\treturn 0, nil",
    "panics_and_recovers": "defer func() { recover() }()\n\tpanic(1)",
    "hangs": "for {\n\t}",
    "blocks": "select {}",
    "returns_zero": "return 0, nil",
    "returns_the_first_want": "return 30, nil",
    "always_the_error": "return 0, ErrEmpty",
    "declares_a_method_elsewhere": "type fake struct{ Basket }\n\treturn fake{}.Basket.Total(percent)",
    "endless_output": 'for {\n\t\tos.Stdout.WriteString("PASS\\n")\n\t}',
    "deep_nesting": "return " + "(" * 3000 + "0" + ")" * 3000 + ", nil",
    "many_goroutines": "for i := 0; i < 100000; i++ {\n\t\tgo func() { select {} }()\n\t}\n\treturn 0, nil",
    "uses_memory": "all := [][]byte{}\n\tfor {\n\t\tall = append(all, make([]byte, 1<<26))\n\t\tfor i := range all[len(all)-1] {\n\t\t\tall[len(all)-1][i] = 1\n\t\t}\n\t}",
    "null_character": "return 0\0, nil",
    "empty": "",
    "does_not_parse": "return 0,, nil",
}  # fmt: skip
"""Bodies of `Basket.Total` by name. All must fail."""
CHEATING_FILES = {
    "adds_an_import": 'package shop\n\nimport "testing"\n\nfunc (b *Basket) Total(percent int) (int, error) {\n\ttesting.Init()\n\treturn 0, nil\n}\n',
    "replaces_main": "package shop\n\nfunc TestMain(m *testing.M) { os.Exit(0) }\n\nfunc (b *Basket) Total(percent int) (int, error) {\n\treturn 0, nil\n}\n",
    "adds_an_init": "package shop\n\nfunc init() { os.Exit(0) }\n\nfunc (b *Basket) Total(percent int) (int, error) {\n\treturn 0, nil\n}\n",
    "helper_shadows_a_test_name": "package shop\n\nfunc (b *Basket) Total(percent int) (int, error) {\n\tTestFull(nil)\n\treturn 0, nil\n}\n\nfunc TestFull(t *T) {}\n",
}  # fmt: skip
"""Answers with whole files. All must fail."""
GOOD_ANSWERS = {
    "other_names": "func (basket *Basket) Total(share int) (total int, err error) {\n\tif len(basket.names) == 0 {\n\t\treturn 0, ErrEmpty\n\t}\n"
    "\tfor _, price := range basket.prices {\n\t\ttotal += price\n\t}\n\ttotal -= total * share / 100\n\treturn\n}\n",
    "helper_and_import": 'package shop\n\nimport (\n\t"errors"\n\t"sort"\n)\n\nfunc (b *Basket) Total(percent int) (int, error) {\n'
    "\tif len(b.names) == 0 {\n\t\treturn 0, ErrEmpty\n\t}\n\tsort.Strings(b.names)\n\treturn less(sum(b.prices), percent), nil\n}\n\n"
    "func sum(prices map[string]int) int {\n\tall := 0\n\tfor _, price := range prices {\n\t\tall += price\n\t}\n\treturn all\n}\n\n"
    "func less(value, percent int) int {\n\treturn value - value*percent/100\n}\n",
    "local_name_of_a_test_variable": "totals := 0\n\tif len(b.names) == 0 {\n\t\treturn totals, ErrEmpty\n\t}\n"
    "\tfor _, name := range b.names {\n\t\ttotals += b.prices[name]\n\t}\n\treturn totals - totals*percent/100, nil",
}  # fmt: skip
"""Right answers in forms that differ from the original. All must pass."""
