import type { JSX } from 'preact'
import type { Setting, SettingValue } from '../../control/api-types.ts'
import { words } from '../format.ts'
import { type Field, textOf, typedValue } from '../setting-field.ts'
import { CountryList, EXCLUDED_COUNTRIES, EXIT_COUNTRIES } from './country-choice.tsx'

/** The field of a key. Text is kept as typed until it is saved. */
export function SettingInput(props: {
  readonly id: string
  readonly setting: Setting
  readonly field: Field
  readonly value: SettingValue | null | undefined
  readonly invalid: boolean
  readonly describedBy: string
  readonly locked: boolean
  readonly change: (value: SettingValue) => void
}): JSX.Element {
  const { id, setting, field, value, invalid, describedBy, locked, change } = props
  const common = { id, 'aria-describedby': describedBy, 'aria-invalid': invalid, disabled: locked }
  if (setting.key === EXIT_COUNTRIES || setting.key === EXCLUDED_COUNTRIES) {
    const exits = setting.key === EXIT_COUNTRIES
    return (
      <CountryList
        id={id}
        label={setting.key}
        none={exits ? 'Anywhere' : 'None'}
        chosen={Array.isArray(value) ? value : []}
        not={[]}
        all={!exits}
        locked={props.locked}
        {...(exits ? { only: (row: { exits: number }) => row.exits > 0 } : {})}
        change={change}
      />
    )
  }
  switch (field.kind) {
    case 'switch':
      return (
        <label class="switch">
          <input
            {...common}
            type="checkbox"
            role="switch"
            aria-checked={value === true}
            checked={value === true}
            onChange={({ currentTarget }) => change(currentTarget.checked)}
          />
          <span class="switch-track" aria-hidden="true" />
          <span>{value === true ? 'On' : 'Off'}</span>
        </label>
      )
    case 'choice':
      return (
        <select {...common} value={String(value ?? '')} onChange={({ currentTarget }) => change(currentTarget.value)}>
          {field.of.map((choice) => (
            <option key={choice} value={choice}>
              {choice}
            </option>
          ))}
        </select>
      )
    case 'choices': {
      const chosen: readonly SettingValue[] = Array.isArray(value) ? value : []
      return (
        <fieldset class="ticks" id={id} aria-describedby={describedBy} disabled={locked}>
          <legend class="hidden">{setting.key}</legend>
          {field.of.map((choice) => (
            <label class="tick" key={choice}>
              <input
                type="checkbox"
                checked={chosen.includes(choice)}
                onChange={({ currentTarget }) =>
                  change(currentTarget.checked ? [...chosen, choice] : chosen.filter((other) => other !== choice))
                }
              />
              {words(choice)}
            </label>
          ))}
        </fieldset>
      )
    }
    case 'lines':
      return (
        <textarea
          {...common}
          rows={Math.min(8, Math.max(2, Array.isArray(value) ? value.length + 1 : 2))}
          spellcheck={false}
          defaultValue={textOf(field, value)}
          onInput={({ currentTarget }) => change(typedValue(field, setting, currentTarget.value))}
        />
      )
    default:
      return (
        <input
          {...common}
          type="text"
          inputMode={field.kind === 'number' ? (field.whole ? 'numeric' : 'decimal') : undefined}
          autocomplete="off"
          spellcheck={false}
          value={typeof value === 'string' ? value : textOf(field, value)}
          onInput={({ currentTarget }) =>
            change(field.kind === 'json' ? currentTarget.value : typedValue(field, setting, currentTarget.value))
          }
        />
      )
  }
}
