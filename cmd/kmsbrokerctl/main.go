// Command kmsbrokerctl administers kmsbrokerd, encrypts and decrypts through
// it, and runs an emulator of Alibaba Cloud KMS.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/build"
	"github.com/kmsbroker/kmsbroker/kmsapi/ram"
)

// Exit statuses. Scripts rely on them.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitUnreachable  = 3
	exitNotPermitted = 4
	exitNotFound     = 5
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole command; it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := &ctl{stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.command()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "kmsbrokerctl: %s\n", printable(err.Error()))
	if e, ok := errors.AsType[*client.Error](err); ok {
		if e.Hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", printable(e.Hint))
		}
		if e.RequestID != "" {
			fmt.Fprintf(stderr, "Alibaba Cloud request: %s\n", e.RequestID)
		}
	}
	if !c.started {
		fmt.Fprintln(stderr, "hint: `kmsbrokerctl help` lists the commands, and --help explains each")
		return exitUsage
	}
	return exitStatus(err)
}

func exitStatus(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	switch {
	case errors.Is(err, os.ErrPermission), ram.Denied(err):
		return exitNotPermitted
	case ram.NotFound(err):
		return exitNotFound
	}
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case !ok:
		return exitFailed
	case e.Reason == client.ReasonUnreachable:
		return exitUnreachable
	case e.Code == codes.PermissionDenied:
		return exitNotPermitted
	case e.Code == codes.NotFound:
		return exitNotFound
	default:
		return exitFailed
	}
}

// usageError is a wrong argument that a command found by itself.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// ctl is one invocation.
type ctl struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	socket         string
	output         string
	started        bool // the arguments were right and the command ran
}

func (c *ctl) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "kmsbrokerctl",
		Short:         "Administer kmsbrokerd: keys born in an HSM, imported into Alibaba Cloud KMS",
		Version:       build.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "table" && c.output != "json" {
				return usagef("--output is table or json, not %q", c.output)
			}
			c.started = true
			return nil
		},
		// Without a Run, cobra would answer a mistyped noun with help and 0.
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(build.Line(root.Name()) + "\n")
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", "", "socket of the daemon (default "+defaultControl+", for encrypt, decrypt, reencrypt and whoami "+client.DefaultSocket+")")
	flags.StringVarP(&c.output, "output", "o", "table", "output format: table or json")
	root.AddCommand(c.keyCommand(), c.backendCommand(), c.appCommand(), c.policyCommand(), c.statusCommand(), c.topCommand(), c.initCommand(), c.doctorCommand(), c.backupCommand(), c.restoreCommand(),
		c.encryptCommand(), c.decryptCommand(), c.reencryptCommand(), c.whoamiCommand(), c.ramCommand(), c.auditCommand(), c.emulatorCommand())
	root.AddCommand(c.manCommands()...)
	return root
}

// noun is a command that only groups verbs.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s needs a verb; see `%s --help`", cmd.CommandPath(), cmd.CommandPath())
		},
	}
	cmd.AddCommand(verbs...)
	return cmd
}

const defaultControl = "/run/kmsbroker/admin/control.sock"

// control runs f with a connection to the control socket.
func (c *ctl) control(f func(conn *client.Conn, control v1.ControlClient) error) error {
	path := c.socket
	if path == "" {
		path = defaultControl
	}
	conn, err := client.Dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Error(f(conn, v1.NewControlClient(conn)))
}
