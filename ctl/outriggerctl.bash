# bash completion of outriggerctl: commands, the options of each, and files for --token-file.
_outriggerctl()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} word command=
    local commands="get set del invalidate route regions rules config stats top bench-lag"
    local options="--address --token-file --json --timeout --help"
    case $previous in
    --token-file) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --address) mapfile -t COMPREPLY < <(compgen -W "127.0.0.1:9411 unix:" -- "$current"); return ;;
    --timeout | --ttl | --flags | --interval | --pattern | --count) return ;;
    esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ " $commands " == *" $word "* ]]; then
            command=$word
            break
        fi
    done
    case $command in
    get) options+=" --peek --info" ;;
    set) options+=" --ttl --flags" ;;
    del) options+=" --wait" ;;
    invalidate) options+=" --pattern --wait --wait-sweep" ;;
    bench-lag) options+=" --count --interval" ;;
    top) options+=" --once --interval" ;;
    "") options+=" $commands" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
}
complete -F _outriggerctl outriggerctl
