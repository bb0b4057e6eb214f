package main

import (
	"fmt"

	"github.com/spf13/cobra"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
	"github.com/kmsbroker/kmsbroker/client"
)

func (c *ctl) keyVerify() *cobra.Command {
	var material bool
	cmd := &cobra.Command{
		Use: "verify NAME", Short: "Check a key from the side of KMS and of the HSM", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.control(func(_ *client.Conn, control v1.ControlClient) error {
				answer, err := control.VerifyKey(cmd.Context(), &v1.VerifyKeyRequest{Name: args[0], Material: material})
				if err != nil {
					return err
				}
				if c.output == "json" {
					err = c.printJSON(answer)
				} else {
					err = c.table(checkRows(answer.GetChecks()))
				}
				if err != nil {
					return err
				}
				for _, check := range answer.GetChecks() {
					if !check.GetPassed() {
						return fmt.Errorf("key %s: check %q failed", args[0], check.GetName())
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&material, "material", false, "import the material again, so that KMS itself vouches that it is the HSM's")
	return cmd
}

func checkRows(checks []*v1.VerifyKeyResponse_Check) [][]string {
	rows := [][]string{{"CHECK", "REGION", "RESULT", "DETAIL"}}
	for _, check := range checks {
		result := "passed"
		if !check.GetPassed() {
			result = "FAILED"
		}
		rows = append(rows, []string{check.GetName(), orDash(check.GetRegion()), result, check.GetDetail()})
	}
	return rows
}
