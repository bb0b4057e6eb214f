package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/config"
)

// auditCommand reads the trail's files and never asks the daemon: the trail must
// be readable when the daemon is down or refuses to work, and on a copy elsewhere,
// and who may administer keys need not be who may read what others did.
func (c *ctl) auditCommand() *cobra.Command {
	var dir string
	cmd := noun("audit", "Read and verify the audit trail", c.auditVerify(&dir), c.auditTail(&dir), c.auditSearch(&dir))
	cmd.PersistentFlags().StringVar(&dir, "dir", filepath.Join(config.DefaultStateDir, "audit"), "directory of the trail, or of a copy")
	return cmd
}

func (c *ctl) auditVerify(dir *string) *cobra.Command {
	var anchors []string
	var from uint64
	cmd := &cobra.Command{
		Use: "verify [--anchor HEAD]...", Short: "Check that the trail is what was written, without the daemon", Args: cobra.NoArgs,
		Long: `Recompute the hash chain of the audit trail and check the signatures of its epochs.
The first record that is not what was written is named, and the exit status is 1.

An anchor is a head of the trail, NUMBER:HASH, that was kept elsewhere: the daemon
writes one to the journal after every administrative record, and "status" shows the
latest. Records up to an anchor are then known to be unchanged. Without one, what
follows the last signature can have been changed or cut off by root.`,
		RunE: func(*cobra.Command, []string) error {
			options := audit.VerifyOptions{From: from}
			for _, text := range anchors {
				head, err := audit.ParseHead(text)
				if err != nil {
					return usageError{err}
				}
				options.Anchors = append(options.Anchors, head)
			}
			summary, err := audit.Verify(*dir, options)
			if err != nil {
				return trailError(err)
			}
			return c.showSummary(summary, len(anchors) > 0)
		},
	}
	cmd.Flags().StringArrayVar(&anchors, "anchor", nil, "a head, NUMBER:HASH, that was kept elsewhere; may be repeated")
	cmd.Flags().Uint64Var(&from, "from", 0, "first record to check, which begins a segment (default 1)")
	return cmd
}

// trailError tells a missing directory from a trail that was tampered with.
func trailError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return usagef("there is no audit trail: %w; name its directory with --dir", err)
	}
	return err
}

func (c *ctl) showSummary(s audit.Summary, anchored bool) error {
	if c.output == "json" {
		raw, err := json.Marshal(map[string]any{
			"records": s.Records, "segments": s.Segments, "begin": s.Begin.String(), "head": s.Head.String(),
			"first": s.First, "last": s.Last, "sealed": s.Sealed, "gaps": s.Gaps, "torn_bytes": s.Torn,
		})
		if err != nil {
			return err
		}
		return c.writeJSON(raw)
	}
	err := c.fields(
		"Records", strconv.FormatUint(s.Records, 10), "Segments", strconv.Itoa(s.Segments),
		"First", s.First.Format("2006-01-02 15:04:05Z"), "Last", s.Last.Format("2006-01-02 15:04:05Z"),
		"Begins with", s.Begin.String(), "Head", s.Head.String(), "Signed up to record", strconv.FormatUint(s.Sealed, 10),
		"Gaps", strconv.Itoa(s.Gaps), "Unfinished bytes", strconv.Itoa(s.Torn))
	if err != nil {
		return err
	}
	if !anchored {
		fmt.Fprintf(c.stderr, "nothing but an anchor vouches for the records after %d, and for the beginning: compare a head from the journal with --anchor\n", s.Sealed)
	}
	return nil
}

func (c *ctl) auditTail(dir *string) *cobra.Command {
	var n int
	var follow bool
	cmd := &cobra.Command{
		Use: "tail [-f]", Short: "Show the last records", Args: cobra.NoArgs,
		Long: "Show the last records of the audit trail, with -o json as they are in its files. Nothing is verified.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 0 {
				return usagef("--lines must not be negative")
			}
			return trailError(audit.Tail(cmd.Context(), *dir, n, follow, c.printRecord))
		},
	}
	cmd.Flags().IntVarP(&n, "lines", "n", 10, "how many records to begin with")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records")
	return cmd
}

func (c *ctl) auditSearch(dir *string) *cobra.Command {
	var filter audit.Filter
	var uid uint32
	var since string
	cmd := &cobra.Command{
		Use: "search", Short: "Show the records of a key, an action, a user, an application or a time", Args: cobra.NoArgs,
		Long: "Show the records of the audit trail that match, with -o json as they are in its files. Nothing is verified.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("uid") {
				filter.UID = &uid
			}
			var err error
			if filter.Since, err = parseSince(since, time.Now()); err == nil {
				err = filter.Check()
			}
			if err != nil {
				return usageError{err}
			}
			return trailError(audit.Search(*dir, filter, c.printRecord))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.Key, "key", "", "name of the key, or a pattern such as 'app-*'")
	flags.StringVar(&filter.Action, "action", "", "action, or a pattern such as 'key.*'")
	flags.Uint32Var(&uid, "uid", 0, "user who called")
	flags.StringVar(&filter.App, "app", "", "application that called, or a pattern such as 'web-*'")
	flags.StringVar(&since, "since", "", "not before: RFC 3339, or how long ago, such as 90m or 24h")
	return cmd
}

func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("--since %q is neither a time such as 2026-09-01T08:00:00Z nor how long ago, such as 24h", text)
	}
	return at, nil
}

// printRecord writes a record as a line: as it is in the file, or for people.
func (c *ctl) printRecord(e audit.Entry) error {
	if c.output == "json" {
		_, err := fmt.Fprintf(c.stdout, "%s\n", e.Line)
		return err
	}
	words := []string{e.At().Format("2006-01-02 15:04:05.000Z"), "#" + strconv.FormatUint(e.Seq, 10), e.Action, string(e.Outcome)}
	word := func(name, value string) {
		if value != "" {
			words = append(words, name+"="+value)
		}
	}
	word("reason", e.Reason)
	if e.Caller != nil && e.Caller.App != "" {
		word("app", e.Caller.App)
	} else if e.Caller != nil {
		word("uid", strconv.FormatUint(uint64(e.Caller.UID), 10))
		word("pid", strconv.Itoa(int(e.Caller.PID)))
		word("unit", e.Caller.Unit)
	}
	word("door", e.Door)
	word("key", e.Key)
	word("key_id", e.KeyID)
	word("backend", e.Backend)
	word("request_id", e.RequestID)
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		word(name, e.Details[name])
	}
	_, err := fmt.Fprintln(c.stdout, printable(strings.Join(words, " ")))
	return err
}
