import type { Command, Option } from "commander";
import { VirtError } from "../../errors.js";
import { verb } from "../options.js";
import { aliases, verbs } from "../verbs.js";

/** `virt-run completion`: a script for a shell, made from the verbs' own options. */
export function command(): Command {
  return verb(
    "completion",
    "print a completion script for a shell",
    "completion bash > ~/.local/share/bash-completion/completions/virt-run",
  )
    .argument("<shell>", "bash | zsh | fish")
    .action(async (shell: string) => {
      const options: Record<string, string[]> = {};
      for (const [name, load] of Object.entries(verbs)) {
        options[name] = (await load())
          .command()
          .options.flatMap((o: Option) => [o.short, o.long].filter((f) => f !== undefined && f !== null));
      }
      for (const [alias, name] of Object.entries(aliases)) options[alias] = options[name] as string[];
      const script = { bash, zsh, fish }[shell];
      if (!script) throw new VirtError("ERR_USAGE", `no completion for '${shell}': bash, zsh or fish`);
      process.stdout.write(script(options));
    });
}

const takesPod =
  "inspect|top|logs|effects|rules|remap|kill|stop|rm|wait|exec|attach|check|detach|checkpoint|snapshot|export|move";
const takesImage = "reattach|restore|verify";

function bash(options: Record<string, string[]>): string {
  const cases = Object.entries(options).map(([v, list]) => `    ${v}) words="${list.join(" ")}" ;;`);
  return `# bash completion of virt-run:  source <(virt-run completion bash)
_virt_run() {
  local cur=\${COMP_WORDS[COMP_CWORD]} verb=\${COMP_WORDS[1]} words=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=( $(compgen -c -- "$cur") $(compgen -W "${Object.keys(options).join(" ")}" -- "$cur") )
    return
  fi
  case $verb in
${cases.join("\n")}
    *) COMPREPLY=( $(compgen -f -- "$cur") ); return ;;
  esac
  case $cur in
    -*) COMPREPLY=( $(compgen -W "$words" -- "$cur") ) ;;
    *) case $verb in
         ${takesPod}) COMPREPLY=( $(compgen -W "$(virt-run ps -a --json 2>/dev/null | sed -n 's/^ *"name": "\\(.*\\)",$/\\1/p')" -- "$cur") ) ;;
         ${takesImage}) COMPREPLY=( $(compgen -W "$(virt-run images -q 2>/dev/null)" -- "$cur") $(compgen -d -- "$cur") ) ;;
         run) COMPREPLY=( $(compgen -c -- "$cur") ) ;;
         *) COMPREPLY=( $(compgen -f -- "$cur") ) ;;
       esac ;;
  esac
}
complete -o filenames -F _virt_run virt-run
`;
}

function zsh(options: Record<string, string[]>): string {
  return `#compdef virt-run
# zsh completion of virt-run:  virt-run completion zsh > ~/.zfunc/_virt-run
autoload -U +X bashcompinit && bashcompinit
${bash(options)}`;
}

function fish(options: Record<string, string[]>): string {
  const lines = [
    "# fish completion of virt-run:  virt-run completion fish > ~/.config/fish/completions/virt-run.fish",
    `complete -c virt-run -n __fish_use_subcommand -a "${Object.keys(options).join(" ")}"`,
    `complete -c virt-run -f -n "__fish_seen_subcommand_from ${takesPod.replaceAll("|", " ")}" -a "(virt-run ps -aq)"`,
    `complete -c virt-run -n "__fish_seen_subcommand_from ${takesImage.replaceAll("|", " ")}" -a "(virt-run images -q)"`,
  ];
  for (const [v, list] of Object.entries(options)) {
    for (const long of list.filter((o) => o.startsWith("--")))
      lines.push(`complete -c virt-run -n "__fish_seen_subcommand_from ${v}" -l ${long.slice(2)}`);
  }
  return `${lines.join("\n")}\n`;
}
