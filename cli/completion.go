package cli

import "github.com/spf13/cobra"

func newCompletion(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands in a shell",
		Long: "Prints a script that lets a shell complete shoal's commands and flags.\n\n" +
			"  bash        source <(shoal completion bash)\n" +
			"  zsh         shoal completion zsh > \"${fpath[1]}/_shoal\"\n" +
			"  fish        shoal completion fish > ~/.config/fish/completions/shoal.fish\n" +
			"  powershell  shoal completion powershell | Out-String | Invoke-Expression",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      argsRange(1, 1, "shell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			default:
				return usagef("bash, zsh, fish or powershell", "there is no completion for %q", clean(args[0]))
			}
		},
	}
}
