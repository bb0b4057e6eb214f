package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printJSON writes one message as an object.
func (c *ctl) printJSON(m proto.Message) error {
	raw, err := marshal(m)
	if err != nil {
		return err
	}
	return c.writeJSON(raw)
}

// printJSONList writes messages as an array, also when there are none.
func printJSONList[M proto.Message](c *ctl, list []M) error {
	all := make([]json.RawMessage, len(list))
	for i, m := range list {
		raw, err := marshal(m)
		if err != nil {
			return err
		}
		all[i] = raw
	}
	raw, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return c.writeJSON(raw)
}

func marshal(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
}

// writeJSON indents by itself: protojson varies its white space on purpose.
func (c *ctl) writeJSON(raw []byte) error {
	var compact, pretty bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		return err
	}
	if err := json.Indent(&pretty, compact.Bytes(), "", "  "); err != nil {
		return err
	}
	pretty.WriteByte('\n')
	_, err := c.stdout.Write(pretty.Bytes())
	return err
}

// table writes rows in columns. The first row is the header.
func (c *ctl) table(rows [][]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = printable(cell)
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	return w.Flush()
}

// printable replaces what a terminal could obey: some texts come from the cloud
// or from an HSM.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// fields writes names and values below each other.
func (c *ctl) fields(pairs ...string) error {
	var rows [][]string
	for i := 0; i+1 < len(pairs); i += 2 {
		rows = append(rows, []string{pairs[i] + ":", orDash(pairs[i+1])})
	}
	return c.table(rows)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func timeText(t *timestamppb.Timestamp, absent string) string {
	if t == nil {
		return absent
	}
	return t.AsTime().Format("2006-01-02 15:04:05Z")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
