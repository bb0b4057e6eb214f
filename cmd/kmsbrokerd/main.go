// Command kmsbrokerd is the daemon: it keeps HSM backends running, imports
// their keys into Alibaba Cloud KMS, and encrypts for local applications.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/internal/build"
	"github.com/kmsbroker/kmsbroker/internal/protect"
)

// maxFiles is enough for every user of a large machine to have as many connections
// as one may have, and known whatever the distribution allows.
const maxFiles = 1 << 16

// garbagePercent lets the heap grow to five times what lives before it is cleaned.
// The daemon keeps a few MB and makes 100 KB with each call, most of it the SDK's:
// with Go's own 100 it spends an eighth of its time on cleaning.
const garbagePercent = 400

const (
	exitFailed = 1
	exitConfig = 2 // wrong flags or configuration
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("kmsbrokerd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("config", "/etc/kmsbroker/kmsbrokerd.toml", "configuration `file`")
	checkOnly := flags.Bool("check-config", false, "check the configuration, print every mistake and exit")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return exitConfig
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "kmsbrokerd: unexpected argument %q\n", flags.Arg(0))
		return exitConfig
	case *showVersion:
		fmt.Fprintln(stdout, build.Line("kmsbrokerd"))
		return 0
	}
	if err := protect.Process(maxFiles); err != nil {
		fmt.Fprintln(stderr, "kmsbrokerd:", err)
		return exitFailed
	}
	cfg, err := config.Load(*path)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitConfig
	}
	if *checkOnly {
		fmt.Fprintf(stdout, "%s: ok\n", *path)
		return 0
	}
	debug.SetGCPercent(garbagePercent)
	log := newLog(stderr, cfg.LogLevel)
	// What is made by name has these rights at the most, whatever the caller's
	// umask.
	syscall.Umask(0o022)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, cfg, &reloader{path: *path, running: cfg, hangup: hangup, log: log}, log); err != nil {
		log.Error("kmsbrokerd stopped", "error", err)
		return exitFailed
	}
	return 0
}
