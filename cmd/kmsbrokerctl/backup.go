package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/broker/audit"
	brokerconfig "github.com/kmsbroker/kmsbroker/broker/config"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
	"github.com/kmsbroker/kmsbroker/client"
	"github.com/kmsbroker/kmsbroker/internal/backup"
	"github.com/kmsbroker/kmsbroker/internal/build"
)

func (c *ctl) backupCommand() *cobra.Command {
	var config, out string
	cmd := &cobra.Command{
		Use: "backup --out FILE", Short: "Write what the daemon remembers into one file", Args: cobra.NoArgs,
		Long: `Write the key registry, the audit trail, the key that signs evidence and the configuration into one file, while the daemon
runs. It takes root or the daemon's user. The file has the secrets of applications that call over TCP, and says what everybody
did: keep it as you keep the machine. HSM keys and CMKs are not in it, nor are PINs and the broker's access key.

What it prints is the head of the audit trail, an anchor for ` + "`kmsbrokerctl audit verify`" + `.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: where shall the backup go?")
			}
			cfg, err := brokerconfig.Load(config)
			if err != nil {
				return err
			}
			return c.backUp(cmd.Context(), cfg.StateDir, config, out)
		},
	}
	cmd.Flags().StringVar(&config, "config", defaultConfig, "configuration of kmsbrokerd")
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	return cmd
}

func (c *ctl) backUp(ctx context.Context, stateDir, config, path string) error {
	// Who cannot read the state need not have it copied.
	if _, err := os.ReadDir(stateDir); err != nil {
		return err
	}
	return c.control(func(_ *client.Conn, control v1.ControlClient) (err error) {
		made, err := control.Snapshot(ctx, &v1.SnapshotRequest{})
		if err != nil {
			return err
		}
		// Root opens and removes nothing that the daemon could make up.
		if dir, name := filepath.Split(made.GetPath()); filepath.Clean(dir) != stateDir || !keyring.SnapshotName.MatchString(name) {
			return fmt.Errorf("the daemon has its state elsewhere than %s says: %.200q", config, made.GetPath())
		}
		head := audit.Head{Seq: made.GetAuditRecords(), Hash: made.GetAuditHead()}.String()
		// A copy that is left has secrets, of a time when they may have been revoked since.
		defer func() { err = errors.Join(err, os.Remove(made.GetPath())) }()
		out, err := replacing(path, 0o600) // whatever the mode of what is there
		if err != nil {
			return err
		}
		m, err := backup.Create(out, backup.Source{StateDir: stateDir, Snapshot: made.GetPath(), Config: config},
			backup.Manifest{Version: build.Version(), MadeAt: time.Now().UTC().Truncate(time.Second), InstanceID: made.GetInstanceId(), StateDir: stateDir, Head: head})
		if err != nil {
			out.abandon()
			return err
		}
		if err := out.finish(); err != nil {
			return err
		}
		return c.fields("Backup", path, "Files", strconv.Itoa(len(m.Files)), "Audit head", head)
	})
}

func (c *ctl) restoreCommand() *cobra.Command {
	var in, stateDir, config, owner string
	cmd := &cobra.Command{
		Use: "restore --in FILE", Short: "Unpack a backup on a machine that has no state yet", Args: cobra.NoArgs,
		Long: `Unpack a backup into a state directory that is not there or empty, with every file's checksum compared. The daemon must not
run. The audit trail goes on with a new epoch and says so; compare it with an anchor from elsewhere, ` + "`kmsbrokerctl audit verify --anchor`" + `.
Restore a broker once: two that run on one registry know nothing of what the other imports.`,
		RunE: func(*cobra.Command, []string) error {
			if in == "" {
				return usagef("--in is missing: which backup?")
			}
			target := backup.Target{StateDir: stateDir, Config: config, UID: -1, GID: -1}
			if os.Geteuid() == 0 && owner != "" {
				var err error
				if target.UID, target.GID, err = idsOf(owner); err != nil {
					return err
				}
			}
			f, err := os.Open(in)
			if err != nil {
				return usageError{err}
			}
			defer f.Close()
			m, err := backup.Restore(f, target)
			if err != nil {
				return err
			}
			return c.fields("Restored", cmp.Or(stateDir, m.StateDir), "Made at", m.MadeAt.Format(time.RFC3339), "By version", m.Version,
				"Instance", m.InstanceID, "Audit head", m.Head)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&in, "in", "", "backup to read")
	flags.StringVar(&stateDir, "state-dir", "", "where the state goes (default: where it was)")
	flags.StringVar(&config, "config", "", "where the configuration goes (default: it stays in the backup)")
	flags.StringVar(&owner, "owner", "kmsbroker", "user who gets the files, when root restores")
	return cmd
}

// idsOf finds a user and its primary group.
func idsOf(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("there is no user %q to get the files: install the package, or name another with --owner", name)
	}
	uid, uidErr := strconv.Atoi(u.Uid)
	gid, gidErr := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(uidErr, gidErr)
}
