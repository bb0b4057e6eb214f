package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kmsbroker/kmsbroker/client"
)

const (
	// partialSuffix ends the name of the file that grows until it is whole.
	partialSuffix = ".partial"
	// targetPrefix begins the second line of the partial output.
	targetPrefix = "# to CMK "
	// maxLine bounds a blob in characters, above all that KMS makes.
	maxLine = 64 << 10
)

func (c *ctl) reencryptCommand() *cobra.Command {
	var f cryptoFlags
	var from string
	cmd := &cobra.Command{
		Use:   "reencrypt --key NAME --in FILE --out FILE",
		Short: "Move blobs to the current CMK of a key, after a rotation",
		Long: `Read a file with one ciphertext blob a line, decrypt each and encrypt it again
with the current CMK of a key, and write the new blobs in the same order. The
plaintexts stay in the daemon. What is done is kept in FILE.partial, where the same
command continues after an interruption; the output appears when it is whole.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.key == "" || f.in == "" || f.toStdout() || f.in == standardStream {
				return usagef("--key, --in and --out are needed, and --in and --out must be files")
			}
			encryptionContext, err := f.encryptionContext()
			if err != nil {
				return err
			}
			region, err := f.region()
			if err != nil {
				return err
			}
			return c.application(func(app *client.Client) error {
				to := app.In(region)
				r := reencryption{
					in: f.in, out: f.out, progress: c.stderr, live: isTerminal(c.stderr),
					job: fmt.Sprintf("%q %q %q %q", f.key, region, from, encryptionContext),
					move: func(blob string) (*client.ReEncrypted, error) {
						return to.ReEncrypt(cmd.Context(), app.In(from), f.key, blob, encryptionContext)
					},
				}
				return r.run()
			})
		},
	}
	f.add(cmd, "key to encrypt with (required)")
	cmd.Flags().StringVar(&from, "from-region", "", "region where the blobs were made (default: the configured one)")
	return cmd
}

// reencryption is one run over a file.
type reencryption struct {
	in, out  string
	job      string // everything that decides what becomes of a blob
	move     func(blob string) (*client.ReEncrypted, error)
	progress io.Writer
	live     bool

	total, done, unchanged int
	target                 string // the CMK that all blobs are moved to
}

func (r *reencryption) run() error {
	header, err := r.survey()
	if err != nil {
		return err
	}
	partial, err := r.resume(header)
	if err != nil {
		return err
	}
	defer partial.Close()
	before := r.done
	if before > 0 {
		fmt.Fprintf(r.progress, "%d of %d were done before\n", r.done, r.total)
	}
	if err := r.moveAll(partial); err != nil {
		return fmt.Errorf("line %d of %s: %w", r.done+1, r.in, err)
	}
	if err := r.finish(partial); err != nil {
		return err
	}
	fmt.Fprintf(r.progress, "%d blobs; %d of the %d of this run had nothing to change\n", r.total, r.unchanged, r.total-before)
	return nil
}

// survey counts the lines and names the job by its checksum, so that a partial
// output is never continued with another input, key or context.
func (r *reencryption) survey() (header string, err error) {
	f, err := os.Open(r.in)
	if err != nil {
		return "", usageError{err}
	}
	defer f.Close()
	hash := sha256.New()
	fmt.Fprintln(hash, r.job)
	lines := scanner(io.TeeReader(f, hash))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == "" {
			return "", fmt.Errorf("line %d of %s is empty: one blob a line is needed", r.total+1, r.in)
		}
		r.total++
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read %s: line %d: %w", r.in, r.total+1, err)
	}
	return "# kmsbrokerctl reencrypt of sha256 " + hex.EncodeToString(hash.Sum(nil)) + "\n", nil
}

func scanner(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	return s
}

// resume opens the partial output behind its last whole line.
func (r *reencryption) resume(header string) (*os.File, error) {
	path := r.out + partialSuffix
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// Two runs would write into each other's lines. The kernel unlocks when the file is
	// closed, however the program ends.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is being written by another run of this job", path), f.Close())
	}
	whole, err := r.wholeLines(f, header)
	if err == nil {
		err = f.Truncate(whole)
	}
	if err == nil {
		_, err = f.Seek(whole, io.SeekStart)
	}
	if err == nil && whole == 0 {
		_, err = f.WriteString(header)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (r *reencryption) wholeLines(f *os.File, header string) (end int64, err error) {
	lines := bufio.NewReader(f)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF):
			r.done = max(n-2, 0)
			return end, nil
		case err != nil:
			return 0, err
		case n == 0 && line != header:
			return 0, fmt.Errorf("%s belongs to another input, key or context: finish that job or remove the file", f.Name())
		case n == 1:
			r.target = strings.TrimSpace(strings.TrimPrefix(line, targetPrefix))
		case n > 1 && !isBlob(line):
			// After a loss of power what was written last can be anything.
			r.done = n - 2
			return end, nil
		}
		end += int64(len(line))
	}
}

// isBlob reports whether a line can be a ciphertext blob, base64 as KMS writes it.
func isBlob(line string) bool {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(line, "\n"))
	return err == nil && len(raw) > 0
}

func (r *reencryption) moveAll(partial *os.File) error {
	f, err := os.Open(r.in)
	if err != nil {
		return err
	}
	defer f.Close()
	shown := time.Now()
	lines := scanner(f)
	for n := 0; lines.Scan(); n++ {
		if n < r.done {
			continue
		}
		moved, err := r.move(strings.TrimSpace(lines.Text()))
		if err != nil {
			return err
		}
		if err := r.keep(partial, moved); err != nil {
			return err
		}
		r.done++
		if moved.Unchanged {
			r.unchanged++
		}
		if time.Since(shown) > time.Second || r.done == r.total {
			r.show()
			shown = time.Now()
		}
	}
	if r.done != r.total {
		return errors.New("the file became shorter")
	}
	return lines.Err()
}

// keep writes a moved blob. The CMK that the first one was moved to is in the
// second line: after a rotation in between, half of the blobs would be where
// nobody looks for them.
func (r *reencryption) keep(partial *os.File, moved *client.ReEncrypted) error {
	switch r.target {
	case moved.KeyID:
	case "":
		r.target = moved.KeyID
		if _, err := partial.WriteString(targetPrefix + moved.KeyID + "\n"); err != nil {
			return err
		}
	default:
		return fmt.Errorf("the key encrypts with CMK %s now, and the blobs before were moved to %s: remove %s and begin again",
			moved.KeyID, r.target, partial.Name())
	}
	_, err := partial.WriteString(moved.CiphertextBlob + "\n")
	return err
}

// show tells how far it is: on a terminal in one line, elsewhere in one of its own.
func (r *reencryption) show() {
	switch {
	case !r.live:
		fmt.Fprintf(r.progress, "%d of %d\n", r.done, r.total)
	case r.done == r.total:
		fmt.Fprint(r.progress, "\r\x1b[K")
	default:
		fmt.Fprintf(r.progress, "\r\x1b[K%d of %d  %d %%", r.done, r.total, 100*r.done/r.total)
	}
}

// finish gives the output its name, without the header.
func (r *reencryption) finish(partial *os.File) error {
	if _, err := partial.Seek(0, io.SeekStart); err != nil {
		return err
	}
	lines := bufio.NewReader(partial)
	for range 2 { // the header and the target
		if _, err := lines.ReadString('\n'); err != nil && (r.total > 0 || !errors.Is(err, io.EOF)) {
			return err
		}
	}
	out, err := replacing(r.out, 0o600)
	if err != nil {
		return err
	}
	if err := out.whole(lines); err != nil {
		return err
	}
	return os.Remove(partial.Name())
}
